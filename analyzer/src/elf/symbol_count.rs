//! How many entries the dynamic symbol table has. No tag says so; the hash tables do.
//!
//! Input: `DT_HASH`, `DT_GNU_HASH`, and the highest index that a relocation uses. Output: a count. `DT_HASH` has one
//! chain word per symbol (gABI chapter 5 "Hash Table"), so that its count is exact. `DT_GNU_HASH` covers only what the
//! file defines: the end of the last chain; undefined symbols stand before those. Where neither reaches as far as the
//! relocations, the relocations do: a symbol that nothing uses and nobody can find does not matter.

use object::LittleEndian as LE;
use object::U32;
use object::elf;

use super::dynamic_tags::DynamicTags;
use super::error::ImageError;
use super::segment::AddressSpace;
use crate::address::Vaddr;

/// The number of symbols, entry 0 included.
pub(super) fn count(
    space: &AddressSpace<'_>,
    tags: &DynamicTags,
    highest_used: Option<u32>,
) -> Result<u64, ImageError> {
    if tags.symtab.is_none() {
        return match highest_used.filter(|index| *index > 0) {
            Some(_) => Err(ImageError::DynamicMissing { present: "DT_RELA", missing: "DT_SYMTAB" }),
            None => Ok(0),
        };
    }
    let used = highest_used.map_or(1, |index| u64::from(index).saturating_add(1));
    let hashed = tags.hash.map(|at| system_v(space, Vaddr(at))).transpose()?.unwrap_or(0);
    let gnu_hashed = tags.gnu_hash.map(|at| gnu(space, Vaddr(at))).transpose()?.unwrap_or(0);
    Ok(used.max(hashed).max(gnu_hashed))
}

/// `DT_HASH`: the number of chain words.
fn system_v(space: &AddressSpace<'_>, start: Vaddr) -> Result<u64, ImageError> {
    let problem = |problem| ImageError::Hash { table: "DT_HASH", start, problem };
    let header: &elf::HashHeader<LE> =
        space.structure(start).ok_or_else(|| problem("it does not lie in the file part of a PT_LOAD"))?;
    Ok(u64::from(header.chain_count.get(LE)))
}

/// `DT_GNU_HASH`: the end of the chain that the highest bucket starts.
fn gnu(space: &AddressSpace<'_>, start: Vaddr) -> Result<u64, ImageError> {
    let problem = |problem| ImageError::Hash { table: "DT_GNU_HASH", start, problem };
    let header: &elf::GnuHashHeader<LE> =
        space.structure(start).ok_or_else(|| problem("it does not lie in the file part of a PT_LOAD"))?;
    let first_hashed = u64::from(header.symbol_base.get(LE));
    // Behind the 16 bytes of the header: the Bloom filter (words of 8 bytes), the buckets, then the chains.
    let buckets_at = 16_u64
        .checked_add(u64::from(header.bloom_count.get(LE)).saturating_mul(8))
        .and_then(|offset| start.checked_add(offset))
        .ok_or_else(|| problem("its Bloom filter goes beyond the address space"))?;
    let bucket_bytes = u64::from(header.bucket_count.get(LE)).saturating_mul(4);
    let buckets: &[U32<LE>] = space.table("DT_GNU_HASH", buckets_at, bucket_bytes)?;
    let last = buckets.iter().map(|bucket| u64::from(bucket.get(LE))).max().unwrap_or(0);
    if last == 0 {
        // Nothing is defined: all that is known is how many stand before the first one that could be.
        return Ok(first_hashed);
    }
    let skipped = last.checked_sub(first_hashed).ok_or_else(|| problem("a bucket starts before the first symbol"))?;
    let chain_at = bucket_bytes
        .checked_add(skipped.saturating_mul(4))
        .and_then(|offset| buckets_at.checked_add(offset))
        .and_then(|at| space.bytes_from(at))
        .ok_or_else(|| problem("a chain starts outside the file part of its PT_LOAD"))?;
    // The lowest bit of a hash word marks the end of its chain.
    let (words, _) = chain_at.as_chunks::<4>();
    let length = words.iter().position(|word| u32::from_le_bytes(*word) & 1 == 1);
    let length = length.and_then(|index| u64::try_from(index).ok()).ok_or_else(|| problem("a chain has no end"))?;
    Ok(last.saturating_add(length).saturating_add(1))
}
