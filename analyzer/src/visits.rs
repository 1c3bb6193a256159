//! How and when each function was reached.
//!
//! Input: functions by their keys, as [`crate::solver`] arrives at them. Output: [`Visits`]: a table by module and number in
//! place of a hash table, since each edge of the program looks one up.

use crate::program::Program;
use crate::reachability::{Cause, FunctionKey, Phase};

/// How and when a function was reached.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) phase: Phase,
    pub(crate) cause: Cause,
    /// Whether its address was taken: then callers that are not known as such may exist.
    pub(crate) address_taken: bool,
}

/// The visits of a program's functions, each of which has one at most.
#[derive(Debug)]
pub(crate) struct Visits {
    /// By module and function: the place in the list, plus one; zero if there is no visit.
    places: Vec<Vec<u32>>,
    list: Vec<(FunctionKey, Visit)>,
}

impl Visits {
    /// None yet.
    pub(crate) fn new(program: &Program<'_>) -> Self {
        let places = program.modules().map(|(_, module)| vec![0; module.summary.functions().all().len()]).collect();
        Self { places, list: Vec::new() }
    }

    fn place(&self, (module, function): FunctionKey) -> Option<usize> {
        let functions = self.places.get(usize::try_from(module.0).ok()?)?;
        let place = functions.get(usize::try_from(function.0).ok()?)?.checked_sub(1)?;
        usize::try_from(place).ok()
    }

    pub(crate) fn get(&self, key: FunctionKey) -> Option<&Visit> {
        self.list.get(self.place(key)?).map(|(_, visit)| visit)
    }

    pub(crate) fn get_mut(&mut self, key: FunctionKey) -> Option<&mut Visit> {
        let place = self.place(key)?;
        self.list.get_mut(place).map(|(_, visit)| visit)
    }

    /// Adds the visit of a function of the program that has none.
    pub(crate) fn insert(&mut self, key: FunctionKey, visit: Visit) {
        let (module, function) = (usize::try_from(key.0.0), usize::try_from(key.1.0));
        let functions = module.ok().and_then(|module| self.places.get_mut(module));
        let place = functions.zip(function.ok()).and_then(|(functions, function)| functions.get_mut(function));
        let Some(place) = place else { return };
        self.list.push((key, visit));
        *place = u32::try_from(self.list.len()).unwrap_or(0);
    }

    /// All of them, in the order of arrival.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(FunctionKey, Visit)> {
        self.list.iter()
    }
}
