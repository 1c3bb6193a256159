//! Functions that do not return, or more than once, by what their names promise.
//!
//! Input: an [`Image`]. Output: where functions start that do not return. What stands behind a call to one of them is
//! no continuation of it: another part of the caller, or another function.
//!
//! Over-approximates: nothing. May miss: a replacement of one of them that does return. Those that return twice are
//! known by their code too ([`crate::code`]).

use rustc_hash::FxHashSet;

use crate::address::Vaddr;
use crate::elf::Image;

/// Functions of libraries that do not return, by their specifications: C17 7.22.4, POSIX, LSB core, the Itanium C++ ABI
/// (exception handling, chapter 2), the stack protector of GCC, and `include/stdio.h` of glibc for its own libraries.
pub const NEVER_RETURN: [&[u8]; 20] = [
    b"abort",
    b"exit",
    b"_exit",
    b"_Exit",
    b"quick_exit",
    b"longjmp",
    b"siglongjmp",
    b"_longjmp",
    b"__longjmp_chk",
    b"pthread_exit",
    b"__assert_fail",
    b"__stack_chk_fail",
    b"__fortify_fail",
    b"__chk_fail",
    b"__libc_fatal",
    b"_Unwind_Resume",
    b"__cxa_throw",
    b"__cxa_rethrow",
    b"__cxa_bad_cast",
    b"_ZSt9terminatev",
];

/// Functions that come back more than once (GCC's `special_function_p`): what the function stored in its frame in the
/// meantime stands there again.
pub const RETURN_TWICE: [&[u8]; 11] = [
    b"setjmp",
    b"_setjmp",
    b"__setjmp",
    b"sigsetjmp",
    b"__sigsetjmp",
    b"savectx",
    b"vfork",
    b"__vfork",
    b"getcontext",
    b"__getcontext",
    b"__libc_vfork",
];

/// Functions of Go's runtime behind whose calls Go's compiler writes no code (`cmd/compile/internal/ssagen/ssa.go`:
/// calls that end a block of kind `BlockExit`).
const GO_NEVER_RETURN: [&[u8]; 22] = [
    b"runtime.throw",
    b"runtime.throwinit",
    b"runtime.fatal",
    b"runtime.gopanic",
    b"runtime.block",
    b"runtime.panicBounds",
    b"runtime.panicExtend",
    b"runtime.panicSimdImm",
    b"runtime.panicdivide",
    b"runtime.panicdottypeE",
    b"runtime.panicdottypeI",
    b"runtime.panicnildottype",
    b"runtime.panicoverflow",
    b"runtime.panicrangestate",
    b"runtime.panicshift",
    b"runtime.panicwrap",
    b"runtime.panicmakeslicecap",
    b"runtime.panicmakeslicelen",
    b"runtime.panicunsafeslicelen",
    b"runtime.panicunsafeslicenilptr",
    b"runtime.panicunsafestringlen",
    b"runtime.panicunsafestringnilptr",
];

/// One for each kind of bounds check, by how their names begin.
const GO_BOUNDS: [&[u8]; 3] = [b"runtime.panicIndex", b"runtime.panicSlice", b"runtime.goPanic"];

/// Where the functions of a file start that do not return.
#[must_use]
pub fn starts(image: &Image<'_>) -> FxHashSet<Vaddr> {
    let symbols = image.symbols().iter().filter(|s| s.is_defined && NEVER_RETURN.contains(&s.name)).map(|s| s.value);
    let hints = image.function_hints().iter().filter(|hint| NEVER_RETURN.contains(&hint.name)).map(|hint| hint.address);
    let go = image.go_table().into_iter().flat_map(|table| &table.functions);
    let go =
        go.filter(|f| GO_NEVER_RETURN.contains(&f.name) || GO_BOUNDS.iter().any(|start| f.name.starts_with(start)));
    symbols.chain(hints).chain(go.map(|function| function.start)).collect()
}
