//! Filters that stop a program only where something is not known.
//!
//! Input: calls, with the addresses that they are known to come from or with none. Output: a [`Program`] that lets
//! these pass and stops the thread for its tracer at all others (`SECCOMP_RET_TRACE`), those of other architectures
//! among them. Classic BPF as in `linux/filter.h` and seccomp(2); offsets are those of `struct seccomp_data`.

use std::collections::{BTreeMap, BTreeSet};

use chestnut_rewriter::bpf::{InvalidProgram, Program, SockFilter};

use crate::kernel::AUDIT_ARCH_X86_64;

const NR: u32 = 0;
const ARCH: u32 = 4;
const IP_LOW: u32 = 8;
const IP_HIGH: u32 = 12;

const ALLOW: SockFilter = ret(libc::SECCOMP_RET_ALLOW);
const TRACE: SockFilter = ret(libc::SECCOMP_RET_TRACE);

/// For each known call: from where, or from anywhere if there is no address.
pub(crate) type Known = BTreeMap<u32, BTreeSet<u64>>;

const fn load(k: u32) -> SockFilter {
    SockFilter { code: 0x20, jt: 0, jf: 0, k }
}

const fn ret(k: u32) -> SockFilter {
    SockFilter { code: 0x06, jt: 0, jf: 0, k }
}

/// Goes on if the value is `k`, else `skipped` instructions further.
const fn expect(k: u32, skipped: u8) -> SockFilter {
    SockFilter { code: 0x15, jt: 0, jf: skipped, k }
}

/// The filter.
pub(crate) fn build(known: &Known) -> Result<Program, InvalidProgram> {
    let calls: Vec<_> = known.iter().collect();
    let mut code = vec![load(ARCH), expect(AUDIT_ARCH_X86_64, 1), SockFilter { code: 0x05, jt: 0, jf: 0, k: 1 }, TRACE];
    code.push(load(NR));
    code.extend(tree(&calls));
    Program::new(code)
}

/// A binary tree over the numbers.
fn tree(calls: &[(&u32, &BTreeSet<u64>)]) -> Vec<SockFilter> {
    match calls {
        [] => vec![TRACE],
        [(nr, places)] => leaf(**nr, places),
        _ => {
            let (low, high) = calls.split_at(calls.len() / 2);
            let low_code = tree(low);
            let middle = high.first().map_or(0, |(nr, _)| **nr);
            let length = u32::try_from(low_code.len()).unwrap_or(u32::MAX);
            // `jge` to the jump over the lower half, or past it into that half.
            let mut code = vec![SockFilter { code: 0x35, jt: 0, jf: 1, k: middle }];
            code.push(SockFilter { code: 0x05, jt: 0, jf: 0, k: length });
            code.extend(low_code);
            code.extend(tree(high));
            code
        }
    }
}

fn leaf(nr: u32, places: &BTreeSet<u64>) -> Vec<SockFilter> {
    let mut code = vec![SockFilter { code: 0x15, jt: 1, jf: 0, k: nr }, TRACE];
    if places.is_empty() {
        code.push(ALLOW);
        return code;
    }
    for place in places {
        let low = u32::try_from(place & 0xffff_ffff).unwrap_or(0);
        let high = u32::try_from(place >> 32).unwrap_or(0);
        code.extend([load(IP_HIGH), expect(high, 3), load(IP_LOW), expect(low, 1), ALLOW]);
    }
    code.push(TRACE);
    code
}

#[cfg(test)]
mod tests {
    use chestnut_rewriter::bpf::SeccompData;

    use super::*;

    /// The interpreter of the rewriter, which knows nothing of this module, decides for all numbers and places.
    #[test]
    fn only_known_calls_from_known_places_pass() {
        let places = |list: &[u64]| list.iter().copied().collect::<BTreeSet<u64>>();
        let mut known: Known = (0..300).step_by(3).map(|nr| (nr, places(&[]))).collect();
        known.insert(1, places(&[0x7f00_1234_5678, 0x1234_5678]));
        known.insert(400, places(&[0xffff_ffff_0000_0001]));
        let filter = build(&known).unwrap();
        for nr in (0..500).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
            for ip in [0, 0x7f00_1234_5678, 0x1234_5678, 0x7f00_0000_0000, 0xffff_ffff_0000_0001] {
                for arch in [AUDIT_ARCH_X86_64, 0x4000_0003] {
                    let passes = arch == AUDIT_ARCH_X86_64
                        && known.get(&nr).is_some_and(|places| places.is_empty() || places.contains(&ip));
                    let data = SeccompData { nr, arch, instruction_pointer: ip, args: [0; 6] };
                    let expected = if passes { libc::SECCOMP_RET_ALLOW } else { libc::SECCOMP_RET_TRACE };
                    assert_eq!(filter.run(&data), expected, "{nr} {ip:#x} {arch:#x}");
                }
            }
        }
        assert!(build(&Known::new()).is_ok());
    }
}
