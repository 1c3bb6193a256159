//! Patches a program by way of the library: analysis, filter, a new file, and back.
//!
//! ```sh
//! cargo run -p chestnut-rewriter --example patch -- /bin/true /tmp/true
//! ```

#![allow(clippy::print_stdout, reason = "a program that prints; the library never does")]

use std::error::Error;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use chestnut_analyzer::{Options, analyze};
use chestnut_rewriter::bpf::Action;
use chestnut_rewriter::{FilterOptions, inspect, rewrite, unpatch};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(input), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err("usage: patch IN OUT".into());
    };
    let original = std::fs::read(&input)?;
    let policy = analyze(&input, &Options::default())?;
    if let Some(unknown) = policy.unresolved.first() {
        return Err(format!("a call whose number is not known, at {}", unknown.site.address).into());
    }
    // A call that is refused fails; without this it ends the program.
    let options = FilterOptions { action: Action::Errno(1), ..FilterOptions::default() };
    let patched = rewrite(&original, &policy, &options)?.bytes;
    std::fs::write(&output, &patched)?;
    std::fs::set_permissions(&output, PermissionsExt::from_mode(0o755))?;

    let found = inspect(&patched)?;
    println!("{} calls are allowed", found.filter.specification().allowed().len());
    println!("what it was is in it: {}", unpatch(&patched)? == original);
    Ok(())
}
