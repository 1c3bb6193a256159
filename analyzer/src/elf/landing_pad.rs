//! Landing pads: where the unwinder enters a function when an exception passes through it.
//!
//! Input: the language-specific data area (LSDA) of a frame description. Output: the addresses of its landing pads.
//! Spec: Itanium C++ ABI, "Exception Handling Tables"; GCC `libgcc/unwind-pe.h`, `libsupc++/eh_personality.cc`. C++,
//! Rust, D, Ada, Objective-C and C's `cleanup` attribute share the format.

use gimli::{DwEhPe, EndianSlice, LittleEndian, Reader as _};

use super::segment::AddressSpace;
use crate::address::Vaddr;

/// An LSDA that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LandingPadError {
    /// It lies outside the file.
    #[error("the exception table at {at} does not lie in the file part of a PT_LOAD")]
    Unbacked {
        /// Where it should be.
        at: Vaddr,
    },
    /// It ends early, or has an encoding that does not exist.
    #[error("the exception table at {at} is damaged")]
    Damaged {
        /// Where it is.
        at: Vaddr,
        /// What gimli says.
        #[source]
        source: gimli::Error,
    },
    /// A landing pad outside the address space or outside code.
    #[error("the exception table at {at} has a landing pad at {found:#x}, which is not in an executable PT_LOAD")]
    OutsideCode {
        /// Where the table is.
        at: Vaddr,
        /// The address that it gives.
        found: u64,
    },
}

/// Where an exception goes that comes out of some calls.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LandingPad {
    /// Where it goes.
    pub target: Vaddr,
    /// First and behind the last byte of the calls.
    pub calls: (Vaddr, Vaddr),
}

/// How many bytes the call-site table of the LSDA at `lsda` has; zero if it cannot be read.
pub(super) fn length(space: &AddressSpace<'_>, lsda: Vaddr) -> u64 {
    let Some(bytes) = space.bytes_from(lsda) else { return 0 };
    let mut table = Table { space, lsda, bytes, rest: EndianSlice::new(bytes, LittleEndian) };
    table.call_sites(lsda).map_or(0, |(_, _, sites)| u64::try_from(sites.len()).unwrap_or(u64::MAX))
}

/// The landing pads of the LSDA at `lsda`, for the description that starts at `function_start`; ascending.
pub(super) fn landing_pads(
    space: &AddressSpace<'_>,
    lsda: Vaddr,
    function_start: Vaddr,
) -> Result<Vec<LandingPad>, LandingPadError> {
    let bytes = space.bytes_from(lsda).ok_or(LandingPadError::Unbacked { at: lsda })?;
    let addresses = Table { space, lsda, bytes, rest: EndianSlice::new(bytes, LittleEndian) }
        .landing_pads(function_start)
        .map_err(|source| LandingPadError::Damaged { at: lsda, source })?;
    let mut pads = Vec::with_capacity(addresses.len());
    for (found, start, end) in addresses {
        let is_code = space.segment_at(Vaddr(found)).is_some_and(|segment| segment.is_executable());
        if !is_code {
            return Err(LandingPadError::OutsideCode { at: lsda, found });
        }
        pads.push(LandingPad { target: Vaddr(found), calls: (Vaddr(start), Vaddr(end)) });
    }
    Ok(pads)
}

/// An LSDA that is being read.
struct Table<'space, 'data> {
    space: &'space AddressSpace<'data>,
    lsda: Vaddr,
    bytes: &'data [u8],
    rest: EndianSlice<'data, LittleEndian>,
}

impl<'data> Table<'_, 'data> {
    /// Reads the header: what landing pads count from, the encoding of call sites, and their table.
    fn call_sites(&mut self, function_start: Vaddr) -> gimli::Result<(u64, DwEhPe, EndianSlice<'data, LittleEndian>)> {
        // Landing pads count from here: the function's start, unless the table says otherwise.
        let base_encoding = self.encoding()?;
        let base = if base_encoding == gimli::DW_EH_PE_omit {
            function_start.0
        } else {
            self.pointer(base_encoding, function_start)?
        };
        // The type table belongs to what is caught, not to where.
        if self.encoding()? != gimli::DW_EH_PE_omit {
            self.rest.read_uleb128()?;
        }
        let encoding = self.encoding()?;
        let length = usize::try_from(self.rest.read_uleb128()?).map_err(|_| gimli::Error::UnsupportedOffset)?;
        Ok((base, encoding, self.rest.split(length)?))
    }

    /// Reads header and call-site table: pads, each with where its calls start and end. Sums wrap, as the unwinder's
    /// do; what they give is checked by the caller.
    fn landing_pads(&mut self, function_start: Vaddr) -> gimli::Result<Vec<(u64, u64, u64)>> {
        let (base, site_encoding, rest) = self.call_sites(function_start)?;
        let mut sites = Table { rest, ..*self };
        let mut pads = Vec::new();
        while !sites.rest.is_empty() {
            // Calls count from the function's start; the action behind the pad does not tell where control goes.
            let start = function_start.0.wrapping_add(sites.value(site_encoding)?);
            let end = start.wrapping_add(sites.value(site_encoding)?);
            let pad = sites.value(site_encoding)?;
            sites.rest.read_uleb128()?;
            // Zero: no landing pad, the exception passes through.
            if pad != 0 {
                pads.push((base.wrapping_add(pad), start, end));
            }
        }
        pads.sort_unstable();
        pads.dedup();
        Ok(pads)
    }

    fn encoding(&mut self) -> gimli::Result<DwEhPe> {
        self.rest.read_u8().map(DwEhPe)
    }

    /// A value in the given format, sign-extended where the format has a sign.
    fn value(&mut self, encoding: DwEhPe) -> gimli::Result<u64> {
        match encoding.format() {
            gimli::DW_EH_PE_absptr | gimli::DW_EH_PE_udata8 => self.rest.read_u64(),
            gimli::DW_EH_PE_uleb128 => self.rest.read_uleb128(),
            gimli::DW_EH_PE_udata2 => self.rest.read_u16().map(u64::from),
            gimli::DW_EH_PE_udata4 => self.rest.read_u32().map(u64::from),
            gimli::DW_EH_PE_sleb128 => self.rest.read_sleb128().map(i64::cast_unsigned),
            gimli::DW_EH_PE_sdata2 => self.rest.read_i16().map(|value| i64::from(value).cast_unsigned()),
            gimli::DW_EH_PE_sdata4 => self.rest.read_i32().map(|value| i64::from(value).cast_unsigned()),
            gimli::DW_EH_PE_sdata8 => self.rest.read_i64().map(i64::cast_unsigned),
            _ => Err(gimli::Error::UnknownPointerEncoding(encoding)),
        }
    }

    /// A pointer: a value and what it is relative to.
    fn pointer(&mut self, encoding: DwEhPe, function_start: Vaddr) -> gimli::Result<u64> {
        let consumed = self.bytes.len().saturating_sub(self.rest.len());
        let here = self.lsda.0.wrapping_add(u64::try_from(consumed).unwrap_or(u64::MAX));
        let value = self.value(encoding)?;
        let address = match encoding.application() {
            gimli::DW_EH_PE_absptr => value,
            // As everywhere in these tables, a stored zero is a null pointer whatever it is relative to.
            _ if value == 0 => 0,
            gimli::DW_EH_PE_pcrel => here.wrapping_add(value),
            gimli::DW_EH_PE_funcrel => function_start.0.wrapping_add(value),
            _ => return Err(gimli::Error::UnsupportedPointerEncoding(encoding)),
        };
        if !encoding.is_indirect() {
            return Ok(address);
        }
        let slot = self.space.array(Vaddr(address)).map(u64::from_le_bytes);
        slot.ok_or(gimli::Error::OffsetOutOfBounds(address))
    }
}
