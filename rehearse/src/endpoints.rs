//! How the news that the pod is going travels: each client learns of it at its own time.

use std::time::Duration;

use fastrand::Rng;
use lameduck::core::time::parse_duration;

/// `--propagate 2s..6s`, from the deletion on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Propagation {
    pub first: Duration,
    pub last: Duration,
}

impl Propagation {
    /// `2s..6s`, or one length for all.
    pub fn parse(text: &str) -> Result<Propagation, String> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let read = |text| parse_duration(text).map_err(|why| format!("cannot read --propagate {text}: {why}; try 2s..6s"));
        let (first, last) = (read(first)?, read(last)?);
        if last < first {
            return Err(format!(
                "cannot read --propagate {text}: the last comes before the first; try {}..{}",
                text_of(last),
                text_of(first)
            ));
        }
        Ok(Propagation { first, last })
    }

    /// When each of so many clients learns of it, after the deletion. Spread evenly, so that few clients are a fair sample as well: one in
    /// each equal part of the range, in random order.
    pub fn draw(&self, clients: usize, rng: &mut Rng) -> Vec<Duration> {
        let mut parts: Vec<usize> = (0..clients).collect();
        rng.shuffle(&mut parts);
        let width = (self.last - self.first).as_secs_f64() / clients as f64;
        parts.iter().map(|&part| self.first + Duration::from_secs_f64((part as f64 + rng.f64()) * width)).collect()
    }
}

fn text_of(length: Duration) -> lameduck::core::time::Show {
    lameduck::core::time::Show(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_news_reaches_each_client_within_the_range_and_all_of_the_range() {
        let propagation = Propagation::parse("2s..6s").unwrap();
        for seed in 0..200 {
            let mut times = propagation.draw(8, &mut Rng::with_seed(seed));
            times.sort();
            assert_eq!(times.len(), 8);
            for (part, time) in times.iter().enumerate() {
                let low = 2.0 + part as f64 * 0.5;
                assert!((low..=low + 0.5).contains(&time.as_secs_f64()), "{times:?}");
            }
        }
        let draw = |seed| propagation.draw(8, &mut Rng::with_seed(seed));
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn one_length_is_a_range_too() {
        assert_eq!(Propagation::parse("3").unwrap().draw(2, &mut Rng::with_seed(1)), [Duration::from_secs(3); 2]);
        for text in ["", "6s..2s", "2s..", "x", "1s..2s..3s"] {
            assert!(Propagation::parse(text).unwrap_err().starts_with("cannot read --propagate"), "{text}");
        }
    }
}
