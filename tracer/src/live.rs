//! One line on a terminal while a program runs.
//!
//! Input: the engine. Output: text on standard error, renewed in place. It is not shown where the program itself may
//! draw: that decides who makes a [`Live`].

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::engine::Engine;

const PERIOD: Duration = Duration::from_millis(250);

/// The line, if there is one.
#[derive(Debug)]
pub(crate) struct Live {
    is_on: bool,
    shown: Option<Instant>,
}

impl Live {
    pub(crate) const fn new(is_on: bool) -> Self {
        Self { is_on, shown: None }
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.is_on
    }

    pub(crate) fn show(&mut self, engine: &Engine) {
        if !self.is_on || self.shown.is_some_and(|shown| shown.elapsed() < PERIOD) {
            return;
        }
        self.shown = Some(Instant::now());
        let text = format!(
            "chestnut: {} calls seen, {} different; {} processes, {} now",
            engine.recorder.stops,
            engine.recorder.entries().len(),
            engine.tree.seen,
            engine.tree.processes.len(),
        );
        // Nobody is left to be told if this fails.
        let _ = write!(io::stderr(), "\r\x1b[K{text}");
    }

    pub(crate) fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
