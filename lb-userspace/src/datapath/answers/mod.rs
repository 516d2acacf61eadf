//! Answers to senders whom nobody else will answer.
pub mod refusals;
mod resets;
