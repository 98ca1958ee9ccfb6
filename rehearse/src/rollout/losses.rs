//! Which requests were lost while which pods were going. Pure.
//!
//! Through a Service nobody sees which pod a request reached: a loss is put beside the pods that were going at that time, and no more is
//! claimed.

use crate::load::Record;
use crate::report::{Loss, Lost, Millis, Pod, PodPhaseName};
use crate::verdict;

/// So long after a pod is gone some node may still send requests to its address.
const JUST_GONE_MS: Millis = 5000;
/// Losses that are further apart are told apart.
const TOGETHER_MS: Millis = 1000;

/// The lost requests of these, in the order of their end: as many together as ended close to each other while the same pods were going.
pub fn losses(records: &[Record], at: impl Fn(std::time::Duration) -> Millis, pods: &[Pod]) -> Vec<Loss> {
    let mut lost: Vec<&Record> = records.iter().filter(|record| verdict::is_lost(record.outcome)).collect();
    lost.sort_by_key(|record| record.ended);
    let mut losses: Vec<Loss> = Vec::new();
    for record in lost {
        let (sent, ended) = (at(record.sent), at(record.ended));
        let named = |which: &dyn Fn(&Pod) -> bool| -> Vec<String> {
            pods.iter().filter(|pod| which(pod)).map(|pod| pod.name.clone()).collect()
        };
        let terminating = named(&|pod| is_terminating(pod, sent, ended));
        let just_gone = named(&|pod| pod.gone_ms.is_some_and(|gone| gone < sent && sent - gone <= JUST_GONE_MS));
        match losses.last_mut() {
            Some(last)
                if (&last.terminating, &last.just_gone) == (&terminating, &just_gone) && ended - last.to_ms <= TOGETHER_MS =>
            {
                last.to_ms = ended;
                verdict::count(record.outcome, &mut 0, &mut last.lost);
            }
            _ => {
                let mut lost = Lost::default();
                verdict::count(record.outcome, &mut 0, &mut lost);
                losses.push(Loss { from_ms: ended, to_ms: ended, lost, terminating, just_gone });
            }
        }
    }
    losses
}

/// At some moment of a request.
fn is_terminating(pod: &Pod, sent: Millis, ended: Millis) -> bool {
    let mut phases = pod.phases.iter().filter(|phase| phase.name == PodPhaseName::Terminating);
    phases.any(|phase| phase.from_ms <= ended && sent <= phase.to_ms)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::client::Outcome;
    use crate::load::schedule::Kind;
    use crate::report::PodPhase;

    fn pod(name: &str, terminating: Option<(Millis, Millis)>) -> Pod {
        let phases = terminating.map(|(from_ms, to_ms)| PodPhase { name: PodPhaseName::Terminating, from_ms, to_ms });
        Pod {
            name: name.to_owned(),
            phases: phases.into_iter().collect(),
            gone_ms: terminating.map(|(_, gone)| gone),
            ..Pod::default()
        }
    }

    fn record(sent: u64, ended: u64, outcome: Outcome) -> Record {
        let [sent, ended] = [sent, ended].map(Duration::from_millis);
        Record { kind: Some(Kind::Fresh), scheduled: sent, sent, ended, outcome, retried: false, unmarked: false }
    }

    #[test]
    fn losses_stand_beside_the_pods_that_were_going() {
        let pods = [pod("a", Some((1000, 2000))), pod("b", Some((1500, 30_000))), pod("new", None)];
        let records = [
            record(100, 200, Outcome::Answered),
            record(500, 600, Outcome::Failed),
            record(1100, 1200, Outcome::Reset),
            record(1150, 1250, Outcome::Cut),
            // Sent while only a was going; ended when both were.
            record(1400, 1600, Outcome::Reset),
            record(3000, 3010, Outcome::Refused),
            record(3050, 3060, Outcome::Unsent),
            record(9000, 9010, Outcome::Refused),
        ];
        let found = losses(&records, |at| at.as_millis() as Millis, &pods);
        let short: Vec<_> = found
            .iter()
            .map(|loss| (loss.from_ms, loss.to_ms, loss.lost.total(), loss.terminating.join(" "), loss.just_gone.join(" ")))
            .collect();
        let owned = |from, to, count, terminating: &str, gone: &str| (from, to, count, terminating.to_owned(), gone.to_owned());
        assert_eq!(
            short,
            [
                owned(600, 600, 1, "", ""),
                owned(1200, 1250, 2, "a", ""),
                owned(1600, 1600, 1, "a b", ""),
                owned(3010, 3010, 1, "b", "a"),
                owned(9010, 9010, 1, "b", ""),
            ]
        );
        assert_eq!(found[1].lost, Lost { reset: 1, cut: 1, ..Lost::default() });
    }

    #[test]
    fn losses_far_apart_are_told_apart() {
        let found = losses(&[record(0, 10, Outcome::Cut), record(2000, 2010, Outcome::Cut)], |at| at.as_millis() as Millis, &[]);
        assert_eq!(found.len(), 2);
    }
}
