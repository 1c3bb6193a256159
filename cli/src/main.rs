//! chestnut: the command line of the analyzer.

fn main() {}
