//! `--in-flight`: the app itself says how much it is working on. It is asked between two looks, over HTTP/1.0, within bounds of time and
//! size; the loop never waits for it.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::core::time::Uptime;
use crate::core::traffic::exposition::{Malformed, Sum};
use crate::core::traffic::question::Question;
use crate::http::{self, Own};

/// The time for one question and its whole answer.
const TIMEOUT: Duration = Duration::from_secs(1);
/// For how long an answer counts.
const FRESH: Duration = Duration::from_millis(1500);
const MOST_BYTES: usize = 16 << 20;

type Answer = Result<u64, String>;

#[derive(Debug)]
pub struct Metric {
    question: Question,
    sender: UnboundedSender<Answer>,
    answers: UnboundedReceiver<Answer>,
    own: UnboundedSender<Own>,
    asking: bool,
    answer: Option<(u64, Uptime)>,
    failing: bool,
    warned: bool,
}

impl Metric {
    pub fn new(question: Question, own: UnboundedSender<Own>) -> Metric {
        let (sender, answers) = unbounded_channel();
        Metric { question, sender, answers, own, asking: false, answer: None, failing: false, warned: false }
    }

    /// Takes the answers that have come. Returns why there is no answer, once for each failure.
    pub fn hear(&mut self, now: Uptime) -> Option<String> {
        let mut warning = None;
        while let Ok(answer) = self.answers.try_recv() {
            self.asking = false;
            match answer {
                Ok(count) => {
                    self.failing = false;
                    self.answer = Some((count, now));
                }
                Err(why) => {
                    // The answer before counts as long as it is fresh.
                    self.failing = true;
                    if !std::mem::replace(&mut self.warned, true) {
                        warning = Some(why);
                    }
                }
            }
        }
        warning
    }

    /// Returns the latest answer, and asks again. None: there is no fresh one, so the sockets decide.
    pub fn look(&mut self, now: Uptime) -> Option<u64> {
        if !std::mem::replace(&mut self.asking, true) {
            let (question, sender, own) = (self.question.clone(), self.sender.clone(), self.own.clone());
            tokio::spawn(async move {
                let answer = match tokio::time::timeout(TIMEOUT, ask(&question, &own)).await {
                    Ok(answer) => answer,
                    Err(_) => Err(format!("no whole answer within {TIMEOUT:?}")),
                };
                let _ = sender.send(answer);
            });
        }
        self.answer.filter(|(_, at)| now.since(*at) < FRESH).map(|(count, _)| count)
    }

    /// Whether there is a fresh answer.
    pub fn answers(&self) -> bool {
        !self.failing
    }

    /// Whether the first answer is still to come: at most for the time of one question.
    pub fn is_awaited(&self) -> bool {
        self.answer.is_none() && !self.failing
    }
}

async fn ask(question: &Question, own: &UnboundedSender<Own>) -> Answer {
    let stream = http::connect(&question.url.host, question.url.port, Some(own)).await?;
    let answer = http::get(&stream, &question.url).await?;
    if answer.status != 200 {
        return Err(format!("it answers {}", answer.status));
    }
    let malformed = |error| match error {
        Malformed::Line(number) => format!("line {number} of the answer is not Prometheus' text format"),
        Malformed::NotACount => "what matches is not a count".to_owned(),
        Malformed::NothingMatches => "no sample of the answer matches".to_owned(),
    };
    let mut sum = Sum::of(&question.selector);
    answer.body(MOST_BYTES, |bytes| sum.feed(bytes).map_err(malformed)).await?;
    let count = sum.finish().map_err(malformed)?;
    Ok((count.ceil() as u64).saturating_sub(question.less.into()))
}
