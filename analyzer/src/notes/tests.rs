//! Notes as the plug-in writes them, and such as nobody writes.

use super::*;

/// One note: kind, then the descriptor behind version and machine.
fn note(kind: u32, descriptor: &[u8]) -> Vec<u8> {
    let size = u32::try_from(descriptor.len() + 4).unwrap();
    let mut bytes: Vec<u8> = [9, size, kind].iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    bytes.extend(b"Chestnut\0\0\0\0\x02\0\x3e\0");
    bytes.extend(descriptor);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn function() -> Vec<u8> {
    let mut descriptor = 0x40_1000_u64.to_le_bytes().to_vec();
    descriptor.extend(b"\x01puts\0i32 (i8*)\0alias\0\0\0fputs\0\0i64 (s*)\0\0taken\0\0qsort\t3\ti32 (i8*, i8*)\0\0");
    descriptor.extend(b"instruction 39 ? -1\0function 60\0\0");
    note(1, &descriptor)
}

fn read(bytes: &[u8]) -> Result<Notes, Problem> {
    let mut notes = Notes::default();
    notes.add_section(bytes)?;
    Ok(notes)
}

#[test]
fn all_that_the_plug_in_writes_is_read() {
    let mut variable = 0x40_2000_u64.to_le_bytes().to_vec();
    variable.push(1);
    variable.extend(24_u64.to_le_bytes());
    variable.extend(b"table\0one\0two\0\0");
    let module = b"a.c\0one\ti32 (i32)\t*\0two\t#\ti8* ()\0\0i32 (i8*)\ti32 (s*)\0\0void ()\0\0void (i32)\0\0one\tvoid ()\ti32 ()\0\0";
    let section = [function(), vec![0; 8], note(2, &variable), note(3, module)].concat();
    let notes = read(&section).unwrap();
    let [function] = notes.functions.as_slice() else { panic!("{notes:?}") };
    assert_eq!((function.address, function.is_local, function.is_weak), (Vaddr(0x40_1000), true, false));
    assert_eq!((function.name.as_str(), function.kind.as_str()), ("puts", "i32 (i8*)"));
    assert_eq!((function.aliases.concat(), function.resolves.len()), ("alias".to_owned(), 0));
    assert_eq!((function.called.concat(), function.indirect.concat()), ("fputs".to_owned(), "i64 (s*)".to_owned()));
    assert_eq!((function.taken.concat(), function.handed[0].parameter), ("taken".to_owned(), 3));
    assert_eq!(function.syscalls[0].values, [Some(39), None, Some(-1)]);
    assert!(function.syscalls[0].is_instruction && !function.syscalls[1].is_instruction);
    assert_eq!((notes.variables[0].size, notes.variables[0].taken.len()), (24, 2));
    let [module] = notes.modules.as_slice() else { panic!("{notes:?}") };
    assert!(module.seen[0].is_data && !module.seen[0].is_number && module.seen[1].is_number);
    assert_eq!((module.seen[0].kinds.concat(), module.united.len()), ("i32 (i32)".to_owned(), 1));
    assert_eq!(
        (module.callers[0].name.as_str(), module.callers[0].kinds.join("; ")),
        ("one", "void (); i32 ()".to_owned())
    );
    assert_eq!((module.from_data.concat(), module.to_data.concat()), ("void ()".to_owned(), "void (i32)".to_owned()));
}

#[test]
fn a_note_that_is_cut_off_is_named() {
    let whole = function();
    assert!(read(&whole).is_ok());
    let size = whole[4..8].try_into().map(u32::from_le_bytes).unwrap();
    for length in 1..24 + usize::try_from(size).unwrap() {
        let cut = read(&whole[..length]);
        assert!(matches!(cut, Err(Problem::Cut { offset: 0 })), "{length}: {cut:?}");
    }
}

#[test]
fn forged_fields_are_named() {
    let poked = |at: usize, bytes: &[u8]| {
        let mut section = [function(), function()].concat();
        let at = at + function().len();
        section[at..at + bytes.len()].copy_from_slice(bytes);
        read(&section).unwrap_err()
    };
    let offset = function().len();
    assert_eq!(poked(0, &[0xff; 4]), Problem::Cut { offset });
    assert_eq!(poked(4, &[0xff; 4]), Problem::Cut { offset });
    assert_eq!(poked(4, &[2, 0, 0, 0]), Problem::Cut { offset });
    assert_eq!(poked(8, &[9, 0, 0, 0]), Problem::Kind { offset, found: 9 });
    assert_eq!(poked(12, b"GNU\0"), Problem::Foreign { offset });
    assert_eq!(poked(24, &[3, 0]), Problem::Version { offset, found: 3 });
    assert_eq!(poked(26, &[183, 0]), Problem::Machine { offset, found: 183 });
    // A text without an end, and a list that is no list of system calls.
    let unended: Vec<u8> = vec![b'a'; function().len() - 37];
    assert_eq!(poked(37, &unended), Problem::Cut { offset });
}

#[test]
fn a_file_that_is_none_has_no_notes() {
    assert_eq!(Notes::read(b""), Ok(Notes::default()));
    assert_eq!(Notes::read(b"\x7fELF"), Ok(Notes::default()));
}
