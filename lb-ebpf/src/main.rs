//! The kernel programs: contexts, maps and helpers, every `unsafe` of the datapath. What they decide is in the library.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        internal_features,
        reason = "atomic instructions, which core offers for BPF in no other way"
    )
)]

#[cfg(target_arch = "bpf")]
mod hooks;

#[cfg(not(target_arch = "bpf"))]
#[expect(
    clippy::panic,
    reason = "a program for the kernel, run as a process by mistake"
)]
fn main() {
    panic!("waggle-bpf is an eBPF object, not a process: build it with `cargo xtask ebpf`");
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
