//! The packet's bytes: headers, the way through them to a tuple, checksums, and what a translation writes.
pub mod checksum;
pub mod crc32c;
pub mod headers;
pub mod packet;
pub mod parse;
pub mod parsed;
pub mod rewrite;
