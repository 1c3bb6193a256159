//! The payload: what the added segment holds and where. Shared by the rewriter, which writes it, and the stub.
//!
//! ```text
//! stub                 e_entry points at its first byte; its last five bytes are `jmp rel32` to the old entry point
//! (zeros)              up to a multiple of 8
//! PayloadHeader        HEADER_LENGTH bytes
//! filter               filter_length times `struct sock_filter` (8 bytes each)
//! note                 note_length bytes: `.note.chestnut`, the rewriter's own record, which the stub never reads
//! ```
//! All numbers are little-endian. Every place is relative to the stub's first byte, so that the payload needs no
//! relocation wherever the kernel puts the image. The displacement of the last jump is the one field that stands
//! outside the header: the rewriter writes it, and a direct jump is the only way to go on that changes no register, no
//! flag and no memory, and asks neither for a landing pad nor for a shadow stack entry.

/// First bytes of the header.
pub const MAGIC: [u8; 8] = *b"CHESTNUT";

/// Version of this layout; a reader refuses any other.
pub const VERSION: u16 = 1;

/// Size of an encoded [`PayloadHeader`].
pub const HEADER_LENGTH: usize = 32;

/// The header's address is the first multiple of this at or behind the stub's end.
pub const HEADER_ALIGNMENT: usize = 8;

/// Size of the jump that ends the stub.
pub const LEAVE_LENGTH: usize = 5;

/// Operation code of that jump, `jmp rel32`.
pub const LEAVE_OPCODE: u8 = 0xe9;

/// What the stub needs to know, and what a reader needs to find the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PayloadHeader {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: u16,
    /// Number of filter instructions (`sock_fprog.len`).
    pub filter_length: u16,
    /// Size of the stub in bytes, without the zeros behind it.
    pub stub_length: u32,
    /// Address of the old entry point less that of the stub's first byte.
    pub entry_offset: i64,
    /// Size of the note in bytes.
    pub note_length: u32,
    /// Zero.
    pub reserved: u32,
}

impl PayloadHeader {
    /// The header as it stands in the file.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LENGTH] {
        let fields: [&[u8]; 7] = [
            &self.magic,
            &self.version.to_le_bytes(),
            &self.filter_length.to_le_bytes(),
            &self.stub_length.to_le_bytes(),
            &self.entry_offset.to_le_bytes(),
            &self.note_length.to_le_bytes(),
            &self.reserved.to_le_bytes(),
        ];
        let mut bytes = [0; HEADER_LENGTH];
        for (to, from) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }

    /// Reads a header from the start of `bytes`. `None` if these are too few, or not one of this version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (version, rest) = rest.split_first_chunk::<2>()?;
        let (filter_length, rest) = rest.split_first_chunk::<2>()?;
        let (stub_length, rest) = rest.split_first_chunk::<4>()?;
        let (entry_offset, rest) = rest.split_first_chunk::<8>()?;
        let (note_length, rest) = rest.split_first_chunk::<4>()?;
        let (reserved, _) = rest.split_first_chunk::<4>()?;
        let header = Self {
            magic: *magic,
            version: u16::from_le_bytes(*version),
            filter_length: u16::from_le_bytes(*filter_length),
            stub_length: u32::from_le_bytes(*stub_length),
            entry_offset: i64::from_le_bytes(*entry_offset),
            note_length: u32::from_le_bytes(*note_length),
            reserved: u32::from_le_bytes(*reserved),
        };
        (header.magic == MAGIC && header.version == VERSION).then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: PayloadHeader = PayloadHeader {
        magic: MAGIC,
        version: VERSION,
        filter_length: 300,
        stub_length: 0x123,
        entry_offset: -0x1000,
        note_length: 77,
        reserved: 0,
    };

    #[test]
    fn header_survives_encoding() {
        assert_eq!(PayloadHeader::decode(&HEADER.encode()), Some(HEADER));
    }

    #[test]
    fn encoding_is_the_layout_that_the_stub_reads() {
        assert_eq!(size_of::<PayloadHeader>(), HEADER_LENGTH);
        assert!(align_of::<PayloadHeader>() <= HEADER_ALIGNMENT);
        assert_eq!(core::mem::offset_of!(PayloadHeader, filter_length), 10);
        assert_eq!(HEADER.encode()[10..12], 300_u16.to_le_bytes());
        assert_eq!(core::mem::offset_of!(PayloadHeader, entry_offset), 16);
    }

    #[test]
    fn other_magic_version_or_length_is_refused() {
        let good = HEADER.encode();
        for at in [0, 7, 8] {
            let mut bad = good;
            bad[at] ^= 1;
            assert_eq!(PayloadHeader::decode(&bad), None, "byte {at}");
        }
        assert_eq!(PayloadHeader::decode(&good[..HEADER_LENGTH - 1]), None);
    }
}
