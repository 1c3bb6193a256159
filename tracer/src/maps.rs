//! Which file an address of a process belongs to.
//!
//! Input: `/proc/PID/maps` (proc_pid_maps(5)). Output: [`Mapping`]s.

use std::io;
use std::path::PathBuf;

use crate::kernel::Tid;

/// A stretch of executable memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Offset in the file of the first byte.
    pub(crate) offset: u64,
    /// Device as the kernel writes it, and inode; 0 for what is no file.
    pub(crate) file: (String, u64),
    /// Path as the process sees it, `[vdso]` and the like, or nothing.
    pub(crate) path: PathBuf,
}

impl Mapping {
    /// Offset in the file of an address; `None` if it lies outside.
    pub(crate) fn offset_of(&self, address: u64) -> Option<u64> {
        let inside = (self.start..self.end).contains(&address);
        address.checked_sub(self.start).filter(|_| inside)?.checked_add(self.offset)
    }

    /// Whether it is of a file.
    pub(crate) const fn is_file(&self) -> bool {
        self.file.1 != 0
    }
}

/// The executable mappings of a process.
pub(crate) fn executable(pid: Tid) -> io::Result<Vec<Mapping>> {
    Ok(parse(&std::fs::read(format!("/proc/{pid}/maps"))?))
}

fn parse(text: &[u8]) -> Vec<Mapping> {
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mapping> {
    // A path may hold anything but a line feed; all before it is ASCII.
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let mut word = || str::from_utf8(fields.next()?).ok();
    let (range, rights, offset, device, inode) = (word()?, word()?, word()?, word()?, word()?);
    let (start, end) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let path = fields.next().unwrap_or_default().trim_ascii_start();
    (rights.as_bytes().get(2) == Some(&b'x')).then_some(Mapping {
        start: number(start)?,
        end: number(end)?,
        offset: number(offset)?,
        file: (device.to_owned(), inode.parse().ok()?),
        path: PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
55d0c0a00000-55d0c0a02000 r--p 00000000 fe:00 1234                       /usr/bin/a name
55d0c0a02000-55d0c0a06000 r-xp 00002000 fe:00 1234                       /usr/bin/a name
7ffd2b5f0000-7ffd2b5f2000 r-xp 00000000 00:00 0                          [vdso]
7f0000000000-7f0000001000 rwxp 00000000 00:00 0 
";

    #[test]
    fn executable_stretches_only_with_whole_paths() {
        let maps = parse(TEXT.as_bytes());
        let paths: Vec<_> = maps.iter().map(|mapping| mapping.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["/usr/bin/a name", "[vdso]", ""]);
        assert_eq!(maps[0].offset_of(0x55d0_c0a0_2010), Some(0x2010));
        assert_eq!(maps[0].offset_of(0x55d0_c0a0_6000), None);
        assert_eq!(maps[0].file, ("fe:00".to_owned(), 1234));
    }
}
