//! When which client sends what: an open loop. Arrivals do not wait for answers, so a server that stalls meets the crowd it has kept
//! waiting.

use std::time::Duration;

use fastrand::Rng;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A connection of its own.
    Fresh,
    /// On a connection that a client keeps open, as an ingress does.
    Pool,
    /// The server takes its time, or the client reads slowly.
    Slow,
    /// A body that trickles in.
    Upload,
    /// An answer that trickles out.
    Stream,
}

/// Which kinds there are, with their shares of the requests in percent.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    pub slow: u32,
    pub upload: u32,
    pub stream: u32,
}

impl Mix {
    fn kind(&self, percent: u32) -> Kind {
        let Mix { slow, upload, stream } = *self;
        match percent {
            p if p < slow => Kind::Slow,
            p if p < slow + upload => Kind::Upload,
            p if p < slow + upload + stream => Kind::Stream,
            p if p % 2 == 0 => Kind::Fresh,
            _ => Kind::Pool,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// From the beginning of the load.
    pub at: Duration,
    pub client: usize,
    pub kind: Kind,
}

/// Arrivals without end, as random as those of people: the gaps are exponential.
#[derive(Debug)]
pub struct Arrivals {
    rng: Rng,
    rate: f64,
    clients: usize,
    mix: Mix,
    now: f64,
}

impl Arrivals {
    pub fn new(rng: Rng, rate: f64, clients: usize, mix: Mix) -> Arrivals {
        Arrivals { rng, rate, clients, mix, now: 0.0 }
    }
}

impl Iterator for Arrivals {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        self.now += -(1.0 - self.rng.f64()).ln() / self.rate;
        let client = self.rng.usize(0..self.clients);
        Some(Arrival { at: Duration::from_secs_f64(self.now), client, kind: self.mix.kind(self.rng.u32(0..100)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(seed: u64) -> Arrivals {
        Arrivals::new(Rng::with_seed(seed), 200.0, 4, Mix { slow: 4, upload: 3, stream: 3 })
    }

    #[test]
    fn the_rate_and_the_shares_are_kept() {
        let all: Vec<Arrival> = arrivals(1).take_while(|arrival| arrival.at < Duration::from_secs(100)).collect();
        assert!((19_000..21_000).contains(&all.len()), "{}", all.len());
        let share = |kind| all.iter().filter(|arrival| arrival.kind == kind).count() as f64 / all.len() as f64;
        for (kind, wanted) in
            [(Kind::Slow, 0.04), (Kind::Upload, 0.03), (Kind::Stream, 0.03), (Kind::Fresh, 0.45), (Kind::Pool, 0.45)]
        {
            assert!((share(kind) - wanted).abs() < 0.02, "{kind:?}: {}", share(kind));
        }
        assert!((0..4).all(|client| all.iter().filter(|arrival| arrival.client == client).count() > 4000));
        assert!(all.windows(2).all(|two| two[0].at <= two[1].at));
    }

    #[test]
    fn a_seed_is_a_schedule() {
        assert!(arrivals(5).take(1000).eq(arrivals(5).take(1000)));
        assert!(!arrivals(5).take(1000).eq(arrivals(6).take(1000)));
    }
}
