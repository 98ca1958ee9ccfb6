//! Values by the kernel's number of a socket, for very many of them: beside number and value at most 12 bytes each. std's HashMap, whose
//! entries lie in the table itself, takes half of them again in empty places, and as much as all while it grows.

use hashbrown::HashTable;

#[derive(Debug)]
pub struct Table<V> {
    /// Grown by the kernel's moving pages, not by copying.
    entries: Vec<(u64, V)>,
    /// Where in `entries`.
    places: HashTable<u32>,
}

impl<V> Default for Table<V> {
    fn default() -> Table<V> {
        Table { entries: Vec::new(), places: HashTable::new() }
    }
}

impl<V> Table<V> {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn get(&self, key: u64) -> Option<&V> {
        self.place(key).map(|place| &self.entries[place].1)
    }

    pub fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        self.place(key).map(|place| &mut self.entries[place].1)
    }

    pub fn get_or_insert_with(&mut self, key: u64, new: impl FnOnce() -> V) -> &mut V {
        let place = self.place(key).unwrap_or_else(|| {
            let place = self.entries.len();
            self.entries.push((key, new()));
            self.places.insert_unique(hash(key), place as u32, |place| hash(self.entries[*place as usize].0));
            place
        });
        &mut self.entries[place].1
    }

    pub fn insert(&mut self, key: u64, value: V)
    where
        V: Copy,
    {
        *self.get_or_insert_with(key, || value) = value;
    }

    pub fn remove(&mut self, key: u64) -> Option<V> {
        let is_key = |place: &u32| self.entries[*place as usize].0 == key;
        let (place, _) = self.places.find_entry(hash(key), is_key).ok()?.remove();
        let (_, value) = self.entries.swap_remove(place as usize);
        // The last entry has taken the place.
        if let Some((moved, _)) = self.entries.get(place as usize) {
            let last = self.entries.len() as u32;
            if let Some(its) = self.places.find_mut(hash(*moved), |place| *place == last) {
                *its = place;
            }
        }
        Some(value)
    }

    pub fn clear(&mut self) {
        *self = Table::default();
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    fn place(&self, key: u64) -> Option<usize> {
        self.places.find(hash(key), |place| self.entries[*place as usize].0 == key).map(|place| *place as usize)
    }
}

/// The numbers are counted up by the kernel, nobody chooses them: the golden ratio spreads them.
fn hash(key: u64) -> u64 {
    let spread = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    spread ^ (spread >> 32)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn it_does_what_a_hash_map_does() {
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        // Few keys, so that they are often there; shifted, so that many have the same home.
        for shift in [0, 20, 40] {
            let (mut table, mut map) = (Table::default(), HashMap::new());
            for step in 0..50_000u64 {
                let key = random(if step % 10_000 < 5000 { 300 } else { 3000 }) << shift;
                match random(5) {
                    0 => assert_eq!(table.remove(key), map.remove(&key)),
                    1 => {
                        table.insert(key, step);
                        map.insert(key, step);
                    }
                    3 => assert_eq!(*table.get_or_insert_with(key, || step), *map.entry(key).or_insert(step)),
                    2 => assert_eq!(table.get(key), map.get(&key)),
                    _ => assert_eq!(table.get_mut(key), map.get_mut(&key)),
                }
                assert_eq!((table.is_empty(), table.values().count()), (map.is_empty(), map.len()));
            }
            let mut values: (Vec<_>, Vec<_>) = (table.values_mut().map(|value| *value).collect(), map.into_values().collect());
            values.0.sort_unstable();
            values.1.sort_unstable();
            assert_eq!(values.0, values.1);
            table.clear();
            assert!(table.is_empty() && table.get(0).is_none() && table.remove(0).is_none());
        }
    }

    /// A control byte beside each place, seven eighths full at most; twice as many while it grows.
    #[test]
    fn beside_an_entry_it_takes_twelve_bytes_at_most() {
        let mut table = Table::default();
        for key in 0..50_000 {
            table.insert(key, ());
            assert!(table.places.len() < 100 || table.places.allocation_size() <= 12 * table.places.len());
        }
    }
}
