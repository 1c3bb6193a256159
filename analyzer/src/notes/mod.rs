//! What the compiler wrote down about functions: the notes of `sourcalyzer/`, in sections `.note.chestnut.calls`.
//!
//! Input: the bytes of an ELF file, linked or not. Output: [`Notes`]. A file whose notes are damaged, of a newer
//! version or of another machine has none, and a [`Problem`] that says why: what one note says of a function is right
//! only together with what all others say of casts. `sourcalyzer/DESIGN.md` has the format.

mod record;

use object::{Object as _, ObjectSection as _};
use thiserror::Error;

use crate::address::Vaddr;
use record::{KIND_FUNCTION, KIND_MODULE, KIND_VARIABLE, Reader};

/// The sections.
pub const SECTION: &str = ".note.chestnut.calls";
/// The version that is read.
pub const VERSION: u16 = 2;

/// Why the notes of a file are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file ends, or a length says more than there is.
    #[error("note at offset {offset:#x} of {SECTION} is cut off")]
    Cut {
        /// In the section.
        offset: usize,
    },
    /// Somebody else's note.
    #[error("note at offset {offset:#x} of {SECTION} is not Chestnut's")]
    Foreign {
        /// In the section.
        offset: usize,
    },
    /// A newer compiler wrote it.
    #[error("note at offset {offset:#x} of {SECTION} has version {found}, this Chestnut reads version {VERSION}")]
    Version {
        /// In the section.
        offset: usize,
        /// Its version.
        found: u16,
    },
    /// Compiled for something else.
    #[error("note at offset {offset:#x} of {SECTION} is for machine {found}, not for x86-64 (62)")]
    Machine {
        /// In the section.
        offset: usize,
        /// `e_machine`.
        found: u16,
    },
    /// A kind that this version does not have.
    #[error("note at offset {offset:#x} of {SECTION} is of the unknown kind {found}")]
    Kind {
        /// In the section.
        offset: usize,
        /// Its kind.
        found: u32,
    },
}

/// A system call that a function makes, as far as its number and arguments are constants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyscallNote {
    /// Whether it is an instruction; else a call of the function `syscall`.
    pub is_instruction: bool,
    /// Number, then arguments.
    pub values: Vec<Option<i64>>,
}

/// A function whose address is passed on to one that is called by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    /// The function that is called.
    pub callee: String,
    /// Which parameter, from zero.
    pub parameter: u32,
    /// The type that its declaration has for what it points to.
    pub kind: String,
}

/// One function, as it was compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionNote {
    /// Where it starts; zero if the linker left it out.
    pub address: Vaddr,
    /// No other object can name it.
    pub is_local: bool,
    /// Another definition may take its place.
    pub is_weak: bool,
    /// What it calls is not known: assembly.
    pub is_opaque: bool,
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Its other names.
    pub aliases: Vec<String>,
    /// Names of indirect functions that it resolves.
    pub resolves: Vec<String>,
    /// What it calls by name.
    pub called: Vec<String>,
    /// Types of its indirect calls.
    pub indirect: Vec<String>,
    /// Functions whose address it takes.
    pub taken: Vec<String>,
    /// Parameters of what it calls that are pointers to functions.
    pub handed: Vec<Handed>,
    /// Its system calls.
    pub syscalls: Vec<SyscallNote>,
}

/// A variable whose initial value has addresses of functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableNote {
    /// Where it starts; zero if the linker left it out.
    pub address: Vaddr,
    /// Its bytes.
    pub size: u64,
    /// Its name.
    pub name: String,
    /// The functions.
    pub taken: Vec<String>,
}

/// How a function is known where its address is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenFunction {
    /// Its name.
    pub name: String,
    /// The types that it was cast to, and its own.
    pub kinds: Vec<String>,
    /// It becomes a pointer to data.
    pub is_data: bool,
    /// It becomes a number, or is used in a way that is not understood.
    pub is_number: bool,
}

/// What a function calls, where its own note may be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its name.
    pub name: String,
    /// Types of its indirect calls, and of functions that it passes on.
    pub kinds: Vec<String>,
}

/// What the source shows of casts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleNote {
    /// The source file.
    pub source: String,
    /// Functions whose address is used.
    pub seen: Vec<SeenFunction>,
    /// Types of which one is cast into the other.
    pub united: Vec<(String, String)>,
    /// Types that pointers to data are cast to.
    pub from_data: Vec<String>,
    /// Types that are cast to pointers to data.
    pub to_data: Vec<String>,
    /// Functions with the types of what they call or pass on.
    pub callers: Vec<Caller>,
}

/// All notes of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Functions.
    pub functions: Vec<FunctionNote>,
    /// Variables.
    pub variables: Vec<VariableNote>,
    /// Source files.
    pub modules: Vec<ModuleNote>,
}

impl Notes {
    /// Reads the notes of an ELF file; a file without them, or that is no ELF file, has none.
    ///
    /// # Errors
    ///
    /// The first note that is not understood: then none of them holds.
    pub fn read(file: &[u8]) -> Result<Self, Problem> {
        let mut notes = Self::default();
        let Ok(object) = object::read::elf::ElfFile64::<object::LittleEndian>::parse(file) else { return Ok(notes) };
        for section in object.sections().filter(|section| section.name() == Ok(SECTION)) {
            let bytes = section.data().map_err(|_| Problem::Cut { offset: 0 })?;
            notes.add_section(bytes)?;
        }
        Ok(notes)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.variables.is_empty() && self.modules.is_empty()
    }

    fn add_section(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        let mut reader = Reader::new(bytes);
        while let Some((kind, mut note)) = reader.next_note()? {
            match kind {
                KIND_FUNCTION => self.functions.push(note.function()?),
                KIND_VARIABLE => self.variables.push(note.variable()?),
                KIND_MODULE => self.modules.push(note.module()?),
                found => return Err(Problem::Kind { offset: note.offset(), found }),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
