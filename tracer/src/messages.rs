//! Where a person is told something while a program runs.
//!
//! Input: what the caller gives to write to. Output: text in it. Whoever asks does so in a thread of its own, so that
//! there is one sink for several threads.

use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

/// A sink for messages, and all that are cloned from it.
#[derive(Clone)]
pub struct Messages(Arc<Mutex<dyn Write + Send>>);

impl Messages {
    /// Messages go there.
    pub fn new(sink: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(sink)))
    }

    /// Writes. If that fails nobody is left to be told.
    pub fn say(&self, text: fmt::Arguments<'_>) {
        let mut sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = sink.write_fmt(text).and_then(|()| sink.flush());
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Messages")
    }
}
