//! A list that moves nothing when it grows: a `Vec` of millions copies all of itself into memory that was never
//! touched, in the middle of a turn.

use std::mem;
use std::ops::{Index, IndexMut};

/// So many items are in one piece of memory.
const PAGE_ITEMS: usize = 1024;

#[derive(Debug)]
pub(super) struct Pages<T> {
    /// All are full but the last, and none is empty.
    pages: Vec<Vec<T>>,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Pages { pages: Vec::new() }
    }
}

impl<T> Pages<T> {
    pub fn len(&self) -> usize {
        self.pages.split_last().map_or(0, |(last, full)| full.len() * PAGE_ITEMS + last.len())
    }

    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    pub fn get(&self, at: usize) -> Option<&T> {
        self.pages.get(at / PAGE_ITEMS)?.get(at % PAGE_ITEMS)
    }

    pub fn push(&mut self, item: T) {
        match self.pages.last_mut() {
            Some(page) if page.len() < PAGE_ITEMS => page.push(item),
            _ => {
                let mut page = Vec::with_capacity(PAGE_ITEMS);
                page.push(item);
                self.pages.push(page);
            }
        }
    }

    pub fn pop(&mut self) -> Option<T> {
        let page = self.pages.last_mut()?;
        let item = page.pop();
        if page.is_empty() {
            self.pages.pop();
        }
        item
    }

    /// Removes the item at this place, which the last one takes.
    pub fn swap_remove(&mut self, at: usize) -> T {
        let last = self.pop().expect("there is an item to be removed");
        if at == self.len() { last } else { mem::replace(&mut self[at], last) }
    }
}

impl<T> Index<usize> for Pages<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        &self.pages[at / PAGE_ITEMS][at % PAGE_ITEMS]
    }
}

impl<T> IndexMut<usize> for Pages<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.pages[at / PAGE_ITEMS][at % PAGE_ITEMS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_there_stays_where_it_is_when_the_list_grows() {
        let mut pages = Pages::default();
        pages.push(0);
        let first: *const usize = &pages[0];
        (1..300 * PAGE_ITEMS).for_each(|item| pages.push(item));
        assert!(std::ptr::eq(first, &pages[0]));
        assert!((0..pages.len()).all(|at| pages[at] == at));
    }

    #[test]
    fn pages_that_are_empty_are_given_back() {
        let mut pages = Pages::default();
        (0..=PAGE_ITEMS).for_each(|item| pages.push(item));
        assert_eq!((pages.pages.len(), pages.pop(), pages.pages.len()), (2, Some(PAGE_ITEMS), 1));
        while pages.pop().is_some() {}
        assert!(pages.is_empty() && pages.pages.is_empty());
    }

    proptest! {
        /// More than a page is there from the start, so that places on both sides of a border are used.
        #[test]
        fn it_is_what_a_vec_is(steps in prop::collection::vec((0..3_u8, any::<usize>()), 1..200)) {
            let mut model: Vec<usize> = (0..PAGE_ITEMS + 50).collect();
            let mut pages = Pages::default();
            model.iter().for_each(|item| pages.push(*item));
            for (step, number) in steps {
                match step {
                    0 => {
                        model.push(number);
                        pages.push(number);
                    }
                    1 => prop_assert_eq!(pages.pop(), model.pop()),
                    _ => {
                        let at = number % model.len();
                        prop_assert_eq!(pages.swap_remove(at), model.swap_remove(at));
                    }
                }
                let at = number % (2 * PAGE_ITEMS);
                prop_assert_eq!(pages.get(at), model.get(at));
                prop_assert_eq!((pages.len(), pages.is_empty()), (model.len(), model.is_empty()));
            }
            let all: Vec<usize> = (0..pages.len()).map(|at| pages[at]).collect();
            prop_assert_eq!(all, model);
        }
    }
}
