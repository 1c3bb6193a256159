//! One ELF file, validated.
