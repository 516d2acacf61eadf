//! Reads whole maps in batches (`BPF_MAP_LOOKUP_BATCH`, kernel 5.6): some thousand times fewer calls than key by key. A
//! hash is read bucket by bucket: nothing that is there the whole time is missed or met twice, whatever is inserted or
//! removed meanwhile.
#![expect(unsafe_code, reason = "aya has no batch operations")]
use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    path::Path,
};

use aya::maps::MapData;
use bytemuck::{Pod, Zeroable};

use crate::bpf::io_error;
use crate::bpf::syscall;

/// enum `bpf_cmd` in linux/bpf.h.
const MAP_LOOKUP_BATCH: libc::c_int = 24;

/// Entries asked for at once; a bucket must fit.
const AT_ONCE: usize = 4096;

/// Calls `take` with every entry of the hash or element of the array pinned at `path`.
///
/// # Errors
/// If the map has not the sizes of `K` and `V`, or the kernel refuses.
pub fn read<K: Pod, V: Pod>(path: &Path, take: impl FnMut(&K, &V)) -> io::Result<()> {
    read_map(&MapData::from_pin(path).map_err(io_error)?, take)
}

/// The same for a map that is open.
pub fn read_map<K: Pod, V: Pod>(map: &MapData, mut take: impl FnMut(&K, &V)) -> io::Result<()> {
    let info = map.info().map_err(io_error)?;
    let sizes = [info.key_size(), info.value_size()].map(usize::try_from);
    if sizes != [Ok(size_of::<K>()), Ok(size_of::<V>())] {
        return Err(io::Error::other(format!(
            "the map {} has other sizes than this program's layout",
            String::from_utf8_lossy(info.name())
        )));
    }
    read_batches(map.fd().as_fd(), &mut take)
}

/// The map's sizes are those of `K` and `V`.
fn read_batches<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    take: &mut impl FnMut(&K, &V),
) -> io::Result<()> {
    #[repr(C)]
    #[derive(Clone, Copy, Zeroable, Pod)]
    struct Attributes {
        from: u64,
        next: u64,
        keys: u64,
        values: u64,
        count: u32,
        map: u32,
        element_flags: u64,
        flags: u64,
    }
    let mut room = AT_ONCE;
    let mut keys = vec![K::zeroed(); room];
    let mut values = vec![V::zeroed(); room];
    let (mut from, mut next) = (0u32, 0u32);
    let mut started = false;
    loop {
        // The kernel copies keys and values packed, each with its own size.
        let mut attributes = Attributes {
            from: if started { (&raw mut from) as u64 } else { 0 },
            next: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(room).unwrap_or(u32::MAX),
            map: syscall::raw(map.as_raw_fd()),
            ..Attributes::zeroed()
        };
        // SAFETY: both buffers have room for `count` keys and values of the map's sizes, and live as long as this
        // function; so do the two positions, of which hashes and arrays use
        // 32 bits.
        let result = unsafe { syscall::bpf(MAP_LOOKUP_BATCH, &mut attributes) };
        let last = match result {
            Ok(_) => false,
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => true,
                // A single bucket is longer than that.
                Some(libc::ENOSPC) => {
                    room *= 2;
                    keys.resize(room, K::zeroed());
                    values.resize(room, V::zeroed());
                    continue;
                }
                _ => return Err(error),
            },
        };
        let count = usize::try_from(attributes.count).unwrap_or(0);
        for (key, value) in keys.iter().zip(&values).take(count) {
            take(key, value);
        }
        if last {
            return Ok(());
        }
        from = next;
        started = true;
    }
}
