//! Tells one version of the analysis from all others: what one has cached is nothing to another.
//!
//! Input: the sources of this crate and the versions of what it uses. Output: the environment variable
//! `CHESTNUT_ANALYSIS` for the compiler.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{fs, io};

fn main() -> io::Result<()> {
    let mut sources = BTreeMap::new();
    read(Path::new("src"), &mut sources)?;
    // A crate that is built by itself has none.
    let versions = Path::new("../Cargo.lock");
    if versions.exists() {
        sources.insert(versions.to_owned(), fs::read(versions)?);
        println!("cargo::rerun-if-changed={}", versions.display());
    }
    println!("cargo::rerun-if-changed=src");
    let mut hasher = DefaultHasher::new();
    sources.hash(&mut hasher);
    println!("cargo::rustc-env=CHESTNUT_ANALYSIS={:016x}", hasher.finish());
    Ok(())
}

/// Reads all files of a folder and of those in it.
fn read(folder: &Path, sources: &mut BTreeMap<PathBuf, Vec<u8>>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read(&path, sources)?;
        } else {
            sources.insert(path.clone(), fs::read(&path)?);
        }
    }
    Ok(())
}
