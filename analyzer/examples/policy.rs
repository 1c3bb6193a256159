//! Which system calls a program can make, and what is not known, by way of the library.
//!
//! ```sh
//! cargo run -p chestnut-analyzer --example policy -- /bin/true
//! ```

#![allow(clippy::print_stdout, reason = "a program that prints; the library never does")]

use std::error::Error;
use std::path::PathBuf;

use chestnut_analyzer::{Options, Session};

fn main() -> Result<(), Box<dyn Error>> {
    let program: PathBuf = std::env::args_os().nth(1).ok_or("usage: policy PROGRAM")?.into();
    // What is known of libraries is kept for the next program of the session.
    let session = Session::default();
    let policy = session.analyze(&program, &Options::default())?;
    for call in policy.allowed.values() {
        println!("{}", call.name);
    }
    for unknown in &policy.unresolved {
        println!("any call: {} at {}", unknown.site.file.display(), unknown.site.address);
    }
    println!("{} calls are blocked; {} assumptions", policy.blocked(), policy.assumptions.len());
    Ok(())
}
