//! The code at the entry point of a patched file, and the layout of the payload that it reads.
//!
//! This one source is built twice. As a library (the workspace member) it is [`payload`]: the contract that the
//! rewriter writes and the stub reads, documented and tested on the host. With `--cfg stub_image`, by
//! `rewriter/build.rs` and `linker-script/stub.ld`, it is a free-standing image: `image.rs` is then the first code that
//! runs in a patched program. With `--cfg stub_trap` on top of that `trap.rs` is in it, for programs that are to say
//! what they die of.
#![no_std]
#![cfg_attr(stub_image, no_main)]

pub mod payload;

#[cfg(stub_image)]
mod image;
#[cfg(stub_image)]
mod syscall;
#[cfg(stub_trap)]
mod trap;
