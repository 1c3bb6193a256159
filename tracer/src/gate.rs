//! The permission system: what becomes of a call that the policy does not allow.
//!
//! Input: a thread that stands before such a call. Output: the call is made, fails, or the process is killed. Only the
//! thread that calls is suspended while a person is asked. The answer is by the number of the call and is given knowing
//! its registers: memory that these point to can be changed by other threads at any time, so this is no barrier against
//! a program that wants to deceive, but a way to find out what a well-meaning one needs.

use std::collections::BTreeSet;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::architecture::Architecture;
use crate::ask::{Answer, Asker, Question};
use crate::decisions::{Decision, Decisions};
use crate::engine::Engine;
use crate::error::Error;
use crate::kernel::{self, Call, CallStop, Registers, Tid};
use crate::messages::Messages;
use crate::trace::Refusal;

/// What becomes of a call that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A person decides.
    Ask,
    /// It is made, and recorded.
    Learn,
    /// It is made, and a line is written.
    Log,
}

/// Who asks. The thread starts with the first question: signals are taken by then, and it does not get them.
#[derive(Debug)]
enum Asking {
    /// Nobody.
    None,
    /// Somebody, from the first question on.
    Ready(Asker, Sender<(Tid, u64, Answer)>, PipeWriter),
    /// A thread.
    Started(Sender<Question>),
}

/// The permission system of a run.
#[derive(Debug)]
pub(crate) struct Gate {
    mode: Mode,
    pub(crate) decisions: Decisions,
    asking: Asking,
    answers: Receiver<(Tid, u64, Answer)>,
    /// Becomes readable when there is an answer.
    pub(crate) bell: PipeReader,
    messages: Messages,
    serial: u64,
    /// Calls that a line was written about.
    logged: BTreeSet<usize>,
    pub(crate) failure: Option<Error>,
}

impl Gate {
    pub(crate) fn new(mode: Mode, decisions: Decisions, asker: Option<Asker>, messages: Messages) -> io::Result<Self> {
        let (bell, ring) = io::pipe()?;
        let (answer, answers) = channel();
        let asking = asker.map_or(Asking::None, |asker| Asking::Ready(asker, answer, ring));
        Ok(Self { mode, decisions, asking, answers, bell, messages, serial: 0, logged: BTreeSet::new(), failure: None })
    }

    /// Passes a question on; whether there is somebody to ask.
    fn put(&mut self, question: Question) -> bool {
        self.asking = match std::mem::replace(&mut self.asking, Asking::None) {
            Asking::Ready(asker, answer, ring) => {
                let (questions, received) = channel();
                let messages = self.messages.clone();
                std::thread::spawn(move || answer_all(&asker, &received, &answer, ring, &messages));
                Asking::Started(questions)
            }
            other => other,
        };
        matches!(&self.asking, Asking::Started(questions) if questions.send(question).is_ok())
    }

    /// The next answer, if there is one.
    fn answer(&mut self) -> Option<(Tid, u64, Answer)> {
        let answer = self.answers.try_recv().ok()?;
        // One byte for each answer.
        let _ = self.bell.read(&mut [0]);
        Some(answer)
    }
}

/// Asks one question after the other; what was answered for good is not asked again.
fn answer_all(
    asker: &Asker,
    questions: &Receiver<Question>,
    answers: &Sender<(Tid, u64, Answer)>,
    mut ring: PipeWriter,
    messages: &Messages,
) {
    let mut settled = std::collections::HashMap::new();
    while let Ok(question) = questions.recv() {
        let answer = settled.get(&question.call).copied().unwrap_or_else(|| asker.ask(&question, messages));
        if answer.is_for_good {
            settled.insert(question.call.clone(), answer);
        }
        // If the other end is gone, so is the program.
        if answers.send((question.tid, question.serial, answer)).is_err() || ring.write_all(&[1]).is_err() {
            return;
        }
    }
}

impl Engine {
    /// A call that the filter did not let pass.
    pub(crate) fn decide(&mut self, tid: Tid, call: &Call) -> io::Result<()> {
        let (architecture, number) = Architecture::of(call.arch, call.nr);
        let name = architecture.name(number);
        let Some(gate) = &mut self.plan.gate else { return self.resume(tid, 0) };
        if let Some(decision) = gate.decisions.get(&name) {
            return self.apply(tid, call, decision);
        }
        match gate.mode {
            Mode::Learn => self.apply(tid, call, Decision::Allow),
            Mode::Log => self.log(tid, call, &name),
            Mode::Ask => self.ask(tid, call, name, number),
        }
    }

    fn log(&mut self, tid: Tid, call: &Call, name: &str) -> io::Result<()> {
        let id = self.record(tid, call, None);
        let site = id.and_then(|id| self.recorder.entries().get(id)).map(|entry| place(&entry.seen.site));
        let program = self.program_of(tid);
        let Some(gate) = &mut self.plan.gate else { return Ok(()) };
        if id.is_some_and(|id| gate.logged.insert(id)) {
            let arguments = call.args.map(|value| format!("{value:#x}")).join(", ");
            let site = site.unwrap_or_default();
            let line = format_args!("chestnut: {program} (thread {tid}): {name}({arguments}) from {site}\n");
            gate.messages.say(line);
        }
        self.resume(tid, 0)
    }

    fn program_of(&self, tid: Tid) -> String {
        let process = self.tree.process_of(tid).and_then(|pid| self.tree.processes.get(&pid));
        let image = process.and_then(|process| self.recorder.images().get(process.space.image));
        image.map_or_else(String::new, |image| image.file.path.display().to_string())
    }

    fn ask(&mut self, tid: Tid, call: &Call, name: String, number: u64) -> io::Result<()> {
        let program = self.program_of(tid);
        let site = self.site_of(tid, call.ip);
        let Some(gate) = &mut self.plan.gate else { return Ok(()) };
        gate.serial = gate.serial.wrapping_add(1);
        let question = Question { serial: gate.serial, tid, call: name, number, args: call.args, program, site };
        let serial = question.serial;
        if !gate.put(question) {
            return self.apply(tid, call, Decision::Kill);
        }
        if let Some(thread) = self.tree.threads.get_mut(&tid) {
            thread.question = Some(serial);
        }
        Ok(())
    }

    fn site_of(&mut self, tid: Tid, ip: u64) -> String {
        let Some(pid) = self.tree.process_of(tid) else { return String::new() };
        let Some(process) = self.tree.processes.get_mut(&pid) else { return String::new() };
        let (image, phase) = (process.space.image, process.space.phase);
        let mapping = process.space.mapping(pid, ip.wrapping_sub(2));
        place(&self.recorder.location(pid, &crate::recorder::Place { image, phase, ip, mapping }))
    }

    /// Lets the threads go on about which there is an answer now.
    pub(crate) fn take_answers(&mut self) -> Result<(), Error> {
        while let Some((tid, serial, answer)) = self.plan.gate.as_mut().and_then(Gate::answer) {
            let Some(thread) = self.tree.threads.get_mut(&tid).filter(|thread| thread.question == Some(serial)) else {
                continue;
            };
            thread.question = None;
            let Ok(CallStop::Entry(call)) = kernel::call_stop(tid) else { continue };
            let (architecture, number) = Architecture::of(call.arch, call.nr);
            if let Some(gate) = self.plan.gate.as_mut().filter(|_| answer.is_for_good) {
                let kept = gate.decisions.set(&architecture.name(number), answer.decision);
                gate.failure = kept.err().or(gate.failure.take());
            }
            let applied = self.apply(tid, &call, answer.decision);
            let applied = crate::engine::unless_gone(applied);
            applied.map_err(|source| Error::Request { tid, what: "a decision could not be carried out", source })?;
        }
        Ok(())
    }

    fn apply(&mut self, tid: Tid, call: &Call, decision: Decision) -> io::Result<()> {
        let refused = (decision != Decision::Allow).then_some(Refusal::Person);
        self.record(tid, call, refused);
        match decision {
            Decision::Allow => {}
            Decision::Refuse(number) => {
                let rax = u64::from(number).wrapping_neg();
                // No call at all, with this result.
                let registers = Registers { orig_rax: u64::MAX, rax, ..kernel::registers(tid)? };
                kernel::set_registers(tid, &registers)?;
            }
            Decision::Kill => kernel::signal_process(self.tree.process_of(tid).unwrap_or(tid), libc::SIGKILL)?,
        }
        self.resume(tid, 0)
    }
}

/// `libc.so.6+0xf8150 (read+0x10)`, with the path.
fn place(site: &chestnut_analyzer::policy::CodeLocation) -> String {
    let symbol = site.symbol.as_ref().map_or_else(String::new, |symbol| format!(" ({symbol})"));
    format!("{}+{}{symbol}", site.file.display(), site.address)
}
