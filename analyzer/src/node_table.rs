//! What is known of the nodes of a program that are reached.
//!
//! Input: nodes by module and number. Output: [`NodeTable`]: tables of places in place of a hash table, since each edge of
//! the program looks one up.

use crate::program::ModuleId;

/// At most one value for each node, in the order in which they came.
#[derive(Debug)]
pub(crate) struct NodeTable<T> {
    /// By module and number: the place in the list, plus one; zero if there is no value.
    places: Vec<Vec<u32>>,
    list: Vec<(ModuleId, u32, T)>,
}

impl<T> NodeTable<T> {
    /// For modules with so many nodes each.
    pub(crate) fn new(nodes: impl Iterator<Item = usize>) -> Self {
        Self { places: nodes.map(|count| vec![0; count]).collect(), list: Vec::new() }
    }

    fn place(&self, module: ModuleId, number: u32) -> Option<usize> {
        let numbers = self.places.get(usize::try_from(module.0).ok()?)?;
        let place = numbers.get(usize::try_from(number).ok()?)?.checked_sub(1)?;
        usize::try_from(place).ok()
    }

    pub(crate) fn get(&self, module: ModuleId, number: u32) -> Option<&T> {
        self.list.get(self.place(module, number)?).map(|(.., value)| value)
    }

    pub(crate) fn get_mut(&mut self, module: ModuleId, number: u32) -> Option<&mut T> {
        let place = self.place(module, number)?;
        self.list.get_mut(place).map(|(.., value)| value)
    }

    /// Adds the value of a node that has none. Whether it is one of the program's, and had none.
    pub(crate) fn insert(&mut self, module: ModuleId, number: u32, value: T) -> bool {
        let behind = self.list.len().checked_add(1).and_then(|behind| u32::try_from(behind).ok());
        let numbers = usize::try_from(module.0).ok().and_then(|module| self.places.get_mut(module));
        let place = usize::try_from(number).ok().and_then(|number| numbers?.get_mut(number));
        let Some((place, behind)) = place.filter(|place| **place == 0).zip(behind) else { return false };
        *place = behind;
        self.list.push((module, number, value));
        true
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(ModuleId, u32, T)> {
        self.list.iter()
    }
}
