//! The payload's layout, shared by the rewriter (which writes it) and the stub image (which reads it at `e_entry`).
#![no_std]
