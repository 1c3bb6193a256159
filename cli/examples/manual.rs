//! Writes the manual pages and the shell completions of both commands into a folder: what a package installs.
//!
//! Input: the command lines as clap knows them, and the folder. Output: `man/*.1` and `completions/*` in it. An example and
//! no command: the programs that users get have no need of it.
//!
//! ```sh
//! cargo run --release -p chestnut-cli --example manual -- FOLDER
//! ```

use std::error::Error;
use std::path::PathBuf;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

#[allow(dead_code, reason = "clap reads its fields")]
#[path = "../src/arguments.rs"]
mod arguments;
#[path = "../src/help.rs"]
mod help;
#[allow(dead_code, reason = "clap reads its fields")]
#[path = "../../rewriter/src/cli.rs"]
mod patcher;

fn main() -> Result<(), Box<dyn Error>> {
    let folder: PathBuf = std::env::args_os().nth(1).ok_or("usage: manual FOLDER")?.into();
    let [manual, completions] = ["man", "completions"].map(|name| folder.join(name));
    std::fs::create_dir_all(&manual)?;
    std::fs::create_dir_all(&completions)?;
    for command in [arguments::command(), patcher::Arguments::command()] {
        // Pages of `help` would say what the others say.
        let command = command.disable_help_subcommand(true);
        write_completions(command.clone(), &completions)?;
        clap_mangen::generate_to(command, &manual)?;
    }
    Ok(())
}

fn write_completions(mut command: Command, folder: &PathBuf) -> Result<(), std::io::Error> {
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, &name, folder)?;
    }
    Ok(())
}
