//! Asks a person, on the terminal or by a command.
//!
//! Input: [`Question`]. Output: [`Answer`]. The terminal may be in any state, as the program that is suspended has left
//! it (a full-screen editor), and another process group may have it: it is taken for the question and then given back.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use rustix::termios::{InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex};

use crate::decisions::{Decision, REFUSED};
use crate::error::Error;
use crate::messages::Messages;

/// A call that waits for an answer.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// Number of the question.
    pub(crate) serial: u64,
    pub(crate) tid: crate::kernel::Tid,
    /// Name of the call, with its table if that is not x86-64's.
    pub(crate) call: String,
    pub(crate) number: u64,
    pub(crate) args: [u64; 6],
    /// Program that makes it.
    pub(crate) program: String,
    /// Where the instruction is.
    pub(crate) site: String,
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) decision: Decision,
    /// For this call of the program from now on.
    pub(crate) is_for_good: bool,
}

impl Answer {
    /// `once`, `always`, `refuse`, `refuse ERRNO`, `kill`, or the first letter.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (word, rest) = text.split_once([' ', ':']).map_or((text, ""), |(word, rest)| (word, rest.trim()));
        let for_good = |decision| Self { decision, is_for_good: true };
        match (word, rest) {
            ("o" | "once", "") => Some(Self { decision: Decision::Allow, is_for_good: false }),
            ("a" | "always", "") => Some(for_good(Decision::Allow)),
            ("r" | "refuse", "") => Some(for_good(Decision::Refuse(REFUSED))),
            ("r" | "refuse", name) => format!("refuse:{}", name.to_uppercase()).parse().ok().map(for_good),
            ("k" | "kill", "") => Some(for_good(Decision::Kill)),
            _ => None,
        }
    }
}

/// The answer where none can be had.
const NO_ANSWER: Answer = Answer { decision: Decision::Refuse(REFUSED), is_for_good: false };

/// Who is asked.
#[derive(Debug)]
pub(crate) enum Asker {
    /// A person at the terminal of this process.
    Terminal(File),
    /// A command, run by the shell.
    Command(String),
}

impl Asker {
    /// A command if there is one, else the terminal.
    pub(crate) fn new(command: Option<&str>) -> Result<Self, Error> {
        if let Some(command) = command {
            return Ok(Self::Command(command.to_owned()));
        }
        let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(Error::NoTerminal)?;
        Ok(Self::Terminal(terminal))
    }

    /// Asks. Where no answer can be had the call is refused, and the reason is told.
    pub(crate) fn ask(&self, question: &Question, messages: &Messages) -> Answer {
        let answer = match self {
            Self::Terminal(terminal) => on_terminal(terminal, question),
            Self::Command(command) => by_command(command, question),
        };
        answer.unwrap_or_else(|error| {
            let call = &question.call;
            messages.say(format_args!("chestnut: no answer about {call}, so it is refused: {error}\n"));
            NO_ANSWER
        })
    }
}

fn arguments(question: &Question) -> String {
    question.args.map(|value| format!("{value:#x}")).join(", ")
}

fn on_terminal(terminal: &File, question: &Question) -> io::Result<Answer> {
    let before = rustix::termios::tcgetattr(terminal)?;
    let owner = rustix::termios::tcgetpgrp(terminal)?;
    let ours = rustix::process::getpgrp();
    if owner != ours {
        rustix::termios::tcsetpgrp(terminal, ours)?;
    }
    let mut lines = before.clone();
    lines.local_modes |= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
    lines.input_modes |= InputModes::ICRNL;
    lines.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
    if !before.local_modes.contains(LocalModes::ICANON) {
        // In raw mode these places hold numbers that are no characters.
        lines.special_codes[SpecialCodeIndex::VEOF] = 4;
        lines.special_codes[SpecialCodeIndex::VEOL] = 0;
    }
    rustix::termios::tcsetattr(terminal, OptionalActions::Flush, &lines)?;
    let answer = dialogue(terminal, question);
    let restored = rustix::termios::tcsetattr(terminal, OptionalActions::Now, &before);
    if owner != ours {
        rustix::termios::tcsetpgrp(terminal, owner)?;
    }
    restored?;
    answer
}

fn dialogue(mut terminal: &File, question: &Question) -> io::Result<Answer> {
    let Question { call, number, program, site, tid, .. } = question;
    write!(
        terminal,
        "\nchestnut: {program} (thread {tid}) calls {call} ({number}), which its policy does not allow\n  \
         from {site}\n  with {}\n",
        arguments(question)
    )?;
    let mut lines = BufReader::new(terminal);
    loop {
        write!(terminal, "allow [o]nce, [a]lways, [r]efuse (or: r ERRNO), [k]ill? ")?;
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(answer) = Answer::parse(&line) {
            return Ok(answer);
        }
    }
}

fn by_command(command: &str, question: &Question) -> io::Result<Answer> {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stderr(Stdio::inherit());
    shell.env("CHESTNUT_CALL", &question.call).env("CHESTNUT_NUMBER", question.number.to_string());
    shell.env("CHESTNUT_PROGRAM", &question.program).env("CHESTNUT_SITE", &question.site);
    shell.env("CHESTNUT_THREAD", question.tid.to_string()).env("CHESTNUT_ARGUMENTS", arguments(question));
    let output = shell.output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("{command}: {}", output.status)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Answer::parse(text.lines().next().unwrap_or_default()).ok_or_else(|| {
        io::Error::other(format!("{command}: expected once, always, refuse [ERRNO] or kill, got {text:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written to it.
    #[derive(Clone, Debug, Default)]
    struct Sink(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_gets_no_answer_says_so_where_messages_go() {
        let (sink, text) = (Sink::default(), String::new);
        let question = Question {
            serial: 1,
            tid: 1,
            call: "getppid".into(),
            number: 110,
            args: [0; 6],
            program: text(),
            site: text(),
        };
        let answer = Asker::Command("echo perhaps".into()).ask(&question, &Messages::new(sink.clone()));
        assert_eq!(answer, NO_ANSWER);
        let said = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert!(
            said.starts_with("chestnut: no answer about getppid, so it is refused: echo perhaps: expected"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }

    #[test]
    fn answers_are_words_or_letters() {
        let answer = |decision, is_for_good| Some(Answer { decision, is_for_good });
        assert_eq!(Answer::parse("o\n"), answer(Decision::Allow, false));
        assert_eq!(Answer::parse(" always "), answer(Decision::Allow, true));
        assert_eq!(Answer::parse("r"), answer(Decision::Refuse(1), true));
        assert_eq!(Answer::parse("refuse enosys"), answer(Decision::Refuse(38), true));
        assert_eq!(Answer::parse("kill"), answer(Decision::Kill, true));
        for text in ["", "yes", "r EWHATEVER", "once more"] {
            assert_eq!(Answer::parse(text), None, "{text}");
        }
    }
}
