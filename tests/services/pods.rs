//! Random pods, in real namespaces: exit code, order, budget.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::signal_to;
use crate::{KILL, SLACK, TERM, lameduck, process, ready, report, services};

/// Every run of the tests plays the same pods.
struct Random(u64);

impl Random {
    /// One of `0..below`.
    fn next(&mut self, below: u64) -> u64 {
        // Knuth's MMIX constants.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[derive(Clone, Debug)]
struct Service {
    /// What it does on TERM: a code, or nothing.
    code: Option<u8>,
    expendable: bool,
}

#[derive(Clone, Copy, Debug)]
enum Cause {
    StopSignal,
    /// SIGKILL for service number n.
    Death(usize),
}

fn name(place: usize) -> String {
    if place == 0 { "report".to_owned() } else { format!("report-{}", place + 1) }
}

#[test]
fn a_hundred_random_pods() {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= 100 {
                        return;
                    }
                    play(number as u64);
                }
            });
        }
    });
}

fn play(number: u64) {
    let mut random = Random(number);
    (0..3).for_each(|_| _ = random.next(2));
    let services: Vec<Service> = (0..1 + random.next(5))
        .map(|_| Service { code: (random.next(8) > 0).then(|| random.next(4) as u8), expendable: random.next(4) == 0 })
        .collect();
    let cause = match random.next(3) {
        0 => Cause::Death(random.next(services.len() as u64) as usize),
        _ => Cause::StopSignal,
    };
    let on_term = |service: &Service| service.code.map_or("ignore".to_owned(), |code| format!("exit:{code}"));
    let mut args = vec!["--grace-period".to_owned(), "3s".to_owned()];
    for companion in &services[1..] {
        let mark = if companion.expendable { "-" } else { "" };
        args.extend(["--with".to_owned(), format!("{mark}{} --on TERM={}", report(), on_term(companion))]);
    }
    args.extend(["--".to_owned(), report().to_owned(), "--on".to_owned(), format!("TERM={}", on_term(&services[0]))]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    lameduck(&args, move |init| follow(init, number, &services, cause));
}

fn follow(init: &mut crate::Pid1, number: u64, pod: &[Service], cause: Cause) {
    ready(init, pod.len());
    let asked = Instant::now();
    let dead = match cause {
        Cause::StopSignal => {
            init.signal(TERM);
            None
        }
        Cause::Death(place) if pod.len() == 1 => {
            let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", init.pid)).unwrap();
            signal_to(children.trim().parse().unwrap(), KILL);
            Some(place)
        }
        Cause::Death(place) => {
            let pid = process(init, &name(place));
            signal_to(pid, KILL);
            if place > 0 && pod[place].expendable {
                // Nothing follows from it: then the stop signal.
                init.line(&format!("{} died of KILL", name(place)));
                init.signal(TERM);
            }
            Some(place)
        }
    };
    let code = init.exit();
    let story = format!("pod {number}: {pod:?}, {cause:?}\n{}", init.seen.join("\n"));
    let expected = match dead {
        Some(place) if place == 0 || !pod[place].expendable => 137,
        _ => pod[0].code.map_or(137, i32::from),
    };
    assert_eq!(code, expected, "{story}");
    assert!(asked.elapsed() < Duration::from_secs(3) + SLACK, "{:?}: {story}", asked.elapsed());
    // Whoever still runs is stopped: the main command first, then the last companion.
    let order: Vec<String> = [0].into_iter().chain((1..pod.len()).rev()).filter(|place| Some(*place) != dead).map(name).collect();
    if pod.len() > 1 {
        assert_eq!(services(init, "stopping"), order, "{story}");
    }
    // SIGKILL is for those alone that do not obey.
    let deaf = (0..pod.len()).any(|place| Some(place) != dead && pod[place].code.is_none());
    assert_eq!(init.seen.iter().any(|line| line.contains(" killing ")), deaf, "{story}");
}
