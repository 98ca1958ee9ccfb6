//! The right size: CPU request and memory limit from all their sources, the number of workers, and the variables that get it.

use std::ffi::OsString;

use super::{Env, Facts, Given, Reader, Refused, Result, Source};
use crate::cli::Args;
use crate::core::servers::{Server, Workers};
use crate::core::size::cgroup::{self, Figure};
use crate::core::size::cpu::{self, Millicores};
use crate::core::size::heap::{self, Heap};
use crate::core::size::quantity;
use crate::core::size::workers::{self, Decided, Decimal, Memory, Policy};
use crate::core::start::template;

pub const CPU_MILLIS: &str = "LAMEDUCK_CPU_REQUEST_MILLIS";
pub const MEMORY_LIMIT: &str = "LAMEDUCK_MEMORY_LIMIT";
/// If this variable is missing, nothing is guessed.
const KUBERNETES: &str = "KUBERNETES_SERVICE_HOST";
/// A Downward API figure below this many millicores was most likely written with divisor 1, not 1m.
const HARDLY_MILLICORES: u64 = 10;

/// CPU, memory and workers, and how each was found.
#[derive(Clone, Debug, Default)]
pub struct Size {
    pub cpu: Option<Cpu>,
    pub memory: Option<u64>,
    pub workers: Option<u64>,
    /// What decided the number of workers, in words.
    pub because: String,
    /// `--workers-env`: the variables in which the main command gets the count.
    pub named: Vec<String>,
    /// `--heap`, and the memory that it shares out.
    pub heap: Option<(Heap, Option<heap::Memory>)>,
    /// Every place that was looked at, including those that were taken.
    pub looks: Vec<Look>,
}

/// Where the CPU figure came from. This decides which variables may be set from it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CpuSource {
    /// The CPUs that it may run on: most likely those of the whole node.
    Affinity,
    /// cgroup shares or weight.
    Guess,
    Limit,
    Request,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cpu {
    pub millicores: Millicores,
    pub source: CpuSource,
    /// In words: what was read, and where.
    pub from: String,
}

/// A place where a figure may stand.
#[derive(Clone, Debug)]
pub struct Look {
    pub what: &'static str,
    pub place: String,
    /// The text that stands there. None: there is none.
    pub text: Option<String>,
    pub means: String,
    pub taken: bool,
}

/// What was read at a place.
enum Reading<T> {
    Known(T),
    /// Why the text gives no figure.
    Nothing(&'static str),
}

/// Takes the first figure there is, and notes every place.
struct Search<T> {
    what: &'static str,
    found: Option<(T, String)>,
    looks: Vec<Look>,
}

impl<T: Copy> Search<T> {
    fn look(&mut self, place: &str, text: Option<&str>, reading: Reading<T>, show: impl Fn(T) -> String) {
        let taken = self.found.is_none() && matches!(reading, Reading::Known(_));
        let means = match reading {
            Reading::Known(value) => {
                if taken {
                    self.found = Some((value, place.to_owned()));
                }
                show(value)
            }
            Reading::Nothing(why) => why.to_owned(),
        };
        let text = text.map(|text| text.trim().to_owned());
        self.looks.push(Look { what: self.what, place: place.to_owned(), text, means, taken });
    }
}

impl Size {
    /// The variables that are added to a service's environment; a variable that the user set is never overwritten. `is_main`: it also gets
    /// those of `--workers-env`.
    pub fn gain(&self, env: &Env, server: Option<&Server>, words: &[String], is_main: bool) -> Vec<(String, String)> {
        let (Some(cpu), Some(workers)) = (&self.cpu, self.workers) else { return Vec::new() };
        let count = |name: &str| (name.to_owned(), workers.to_string());
        let mut gained = vec![count("LAMEDUCK_WORKERS")];
        // From a guess or the node's CPUs no variable is set that would take effect: 64 workers on a 64-core node would run out of memory.
        if matches!(cpu.source, CpuSource::Request | CpuSource::Limit) {
            match server.map_or(Workers::Elsewhere, |server| server.workers) {
                _ if is_main && !self.named.is_empty() => gained.extend(self.named.iter().map(|name| count(name))),
                Workers::Variables(own) if !own.iter().any(|name| env.get(name).is_some()) => {
                    gained.extend(own.first().map(|name| count(name)));
                }
                Workers::JavaOption => gained.extend(java_option(env, words, workers)),
                Workers::Variables(_) | Workers::Elsewhere => {}
            }
        }
        gained.dedup();
        // A variable that is appended to may exist.
        gained.retain(|(name, _)| env.get(name).is_none() || name == JAVA);
        gained
    }

    /// Puts the variables for the heap of one of so many services to those that its environment gains: behind what is gained there already.
    pub fn heap(&self, env: &Env, services: usize, words: &[String], gained: &mut Vec<(String, String)>) -> heap::Settings {
        let Some((heap, memory)) = self.heap else { return heap::Settings::default() };
        let variable = |name: &str| {
            let gained = gained.iter().find(|(known, _)| known == name).map(|(_, value)| OsString::from(value));
            gained.or_else(|| env.get(name).map(OsString::from))
        };
        let settings = heap::settings(heap, memory, services, words, &variable);
        for set in &settings.set {
            gained.retain(|(name, _)| name != set.name);
            gained.push((set.name.to_owned(), set.value.clone()));
        }
        settings
    }

    /// The variables that templates may use beyond the app's environment.
    pub fn values(&self) -> Vec<(&'static str, String)> {
        let cpu = self.cpu.as_ref().map(|cpu| ("LAMEDUCK_CPU_MILLIS", cpu.millicores.0.to_string()));
        let memory = self.memory.map(|memory| ("LAMEDUCK_MEMORY_BYTES", memory.to_string()));
        cpu.into_iter().chain(memory).collect()
    }
}

pub fn size(reader: &mut Reader<'_>, args: &Args, facts: &Facts, warnings: &mut Vec<String>) -> Result<Size> {
    let policy = policy(reader, args)?;
    let worker = bytes(reader, "worker-memory", args.workers.worker_memory.as_deref())?.filter(|worker| *worker > 0);
    let reserve = bytes(reader, "memory-reserve", args.workers.memory_reserve.as_deref())?.unwrap_or(0);
    let named = reader.list("workers-env", &args.workers.workers_env, "variable name", |text| {
        if template::is_name(text) { Ok(text.to_owned()) } else { Err("not the name of a variable") }
    })?;

    let mut looks = Vec::new();
    let cpu = cpu(reader, args, facts, &mut looks, warnings)?;
    let memory = memory(reader, facts, &mut looks)?;
    if let Some((limit, from)) = memory.as_ref().filter(|(limit, _)| *limit < reserve) {
        return Err(Refused::Usage(format!(
            "cannot fit the workers: --memory-reserve {reserve} > memory limit {limit} ({from}); lower the one or raise the other"
        )));
    }
    let limit = memory.map(|(limit, _)| limit);
    if worker.is_some() && limit.is_none() {
        warnings.push("--worker-memory has no effect: no memory limit is known".to_owned());
    }
    let held = limit.zip(worker).map(|(limit, worker)| Memory { limit, reserve, worker });
    let count = cpu.as_ref().map(|cpu| (cpu, workers::count(cpu.millicores, &policy, held.as_ref())));
    let because = count.map_or(String::new(), |(cpu, (_, decided))| because(cpu, &policy, held.as_ref(), decided));
    let workers = count.map(|(_, (workers, _))| workers);
    let heap = match reader.given("heap", args.workers.heap.as_deref())? {
        Some(given) => {
            let heap = Heap::parse(&given.text).map_err(|why| given.cannot("heap", why))?;
            reader.show("heap", &given.text, given.source);
            if limit.is_none() {
                warnings.push("--heap has no effect: no memory limit is known".to_owned());
            }
            Some((heap, limit.map(|limit| heap::Memory { limit, reserve, visible: visible(facts).unwrap_or(limit) })))
        }
        None => None,
    };
    Ok(Size { cpu, memory: limit, workers, because, named, heap, looks })
}

/// What runtimes take for the machine's memory, in bytes.
fn visible(facts: &Facts) -> Option<u64> {
    let limits = facts.cgroup.memory_max.iter().filter_map(|figure| cgroup::memory_limit(&figure.text));
    limits.min().or(facts.memory)
}

fn policy(reader: &mut Reader<'_>, args: &Args) -> Result<Policy> {
    let mut policy = Policy::default();
    if let Some(given) = reader.given("workers-per-cpu", args.workers.workers_per_cpu.as_deref())? {
        policy.per_cpu = Decimal::parse(&given.text).map_err(|why| given.cannot("workers per CPU", why))?;
        reader.show("workers-per-cpu", policy.per_cpu, given.source);
    }
    if let Some(extra) = reader.number::<i32>("workers-extra", &args.workers.workers_extra)? {
        policy.extra = extra.into();
    }
    if let Some(min) = reader.number::<u32>("workers-min", &args.workers.workers_min)? {
        policy.min = min.into();
    }
    policy.max = reader.number::<u32>("workers-max", &args.workers.workers_max)?.map(u64::from);
    if policy.max == Some(0) {
        return Err(Refused::Usage("cannot run 0 workers: --workers-max is 0; give 1 or more".to_owned()));
    }
    if let Some(max) = policy.max.filter(|max| *max < policy.min) {
        return Err(Refused::Usage(format!(
            "cannot fit the workers: --workers-min {} > --workers-max {max}; swap them",
            policy.min
        )));
    }
    Ok(policy)
}

fn bytes(reader: &mut Reader<'_>, name: &'static str, typed: Option<&str>) -> Result<Option<u64>> {
    let Some(given) = reader.given(name, typed)? else { return Ok(None) };
    let bytes = parse_bytes(&given.text).map_err(|why| given.cannot(&name.replace('-', " "), why))?;
    reader.show(name, &given.text, given.source);
    Ok(Some(bytes))
}

fn parse_bytes(text: &str) -> std::result::Result<u64, &'static str> {
    quantity::parse(text.trim(), 0, "not bytes (try 268435456, 256Mi or 300M)")
}

/// The first CPU figure that is known and not 0.
fn cpu(
    reader: &mut Reader<'_>,
    args: &Args,
    facts: &Facts,
    looks: &mut Vec<Look>,
    warnings: &mut Vec<String>,
) -> Result<Option<Cpu>> {
    const NOT_SET: Reading<(Millicores, CpuSource)> = Reading::Nothing("not set");
    let env = reader.env;
    let in_kubernetes = env.get(KUBERNETES).is_some();
    let mut search = Search { what: "cpu", found: None, looks: Vec::new() };
    let request = |millicores: Millicores| match millicores.0 {
        0 => Reading::Nothing("0: no request was made"),
        _ => Reading::Known((millicores, CpuSource::Request)),
    };
    let shown = |(millicores, _): (Millicores, CpuSource)| millicores.to_string();

    match reader.given("cpu-request", args.workers.cpu_request.as_deref())? {
        Some(given) => {
            let millicores = cpu::parse_quantity(&given.text).map_err(|why| given.cannot("CPU request", why))?;
            let whole = matches!(given.source, Source::Variable(_)) && given.text.bytes().all(|byte| byte.is_ascii_digit());
            let rounded = if in_kubernetes && whole && millicores.0 > 0 {
                " (rounded up to whole cores, if by the Downward API with divisor 1; 1m is exact)"
            } else {
                ""
            };
            reader.show("cpu-request", &given.text, given.source.clone());
            search.look(&given.source.to_string(), Some(&given.text), request(millicores), |known| shown(known) + rounded);
        }
        None => search.look("--cpu-request", None, NOT_SET, shown),
    }
    let hardly = |place: &str, millicores: Millicores| {
        (1..HARDLY_MILLICORES).contains(&millicores.0).then(|| {
            let cores = millicores.0;
            format!("{place} says {cores} thousandths of a core: if {cores} whole cores are meant, use the Downward API with divisor: 1m")
        })
    };
    match env.get(CPU_MILLIS) {
        Some(value) => {
            let given = Given { text: value.to_string_lossy().into_owned(), source: Source::Variable(CPU_MILLIS.to_owned()) };
            let millicores = cpu::parse_millicores(&given.text).map_err(|why| given.cannot("CPU request", why))?;
            warnings.extend(hardly(CPU_MILLIS, millicores));
            search.look(CPU_MILLIS, Some(&given.text), request(millicores), shown);
        }
        None => search.look(CPU_MILLIS, None, NOT_SET, shown),
    }
    match &facts.podinfo_cpu {
        Some(Figure { path, text }) if search.found.is_none() => {
            let millicores = cpu::parse_millicores(text).map_err(|why| bad_file("CPU request", path, text, why))?;
            warnings.extend(hardly(path, millicores));
            search.look(path, Some(text), request(millicores), shown);
        }
        Some(Figure { path, text }) => search.look(path, Some(text), Reading::Nothing("not needed"), shown),
        None => search.look("the file cpu_request in LAMEDUCK_PODINFO", None, Reading::Nothing("not there"), shown),
    }
    // The lowest limit of the group and those around it.
    let limits = facts.cgroup.cpu_max.iter().map(|figure| (figure, cpu::parse_cpu_max(&figure.text)));
    let lowest = limits.clone().filter_map(|(figure, limit)| Some((limit?, figure))).min_by_key(|(limit, _)| *limit);
    match lowest.or(limits.clone().next().map(|(figure, _)| (Millicores(0), figure))) {
        Some((limit, figure)) => {
            let reading = match limit.0 {
                0 => Reading::Nothing("no limit"),
                _ => Reading::Known((limit, CpuSource::Limit)),
            };
            search.look(&figure.path, Some(&figure.text), reading, |known| format!("limit {}", shown(known)));
        }
        None => search.look("the cgroup's CPU limit", None, Reading::Nothing("not to be seen"), shown),
    }
    let cpus = facts.cpus.map(|cpus| Millicores(cpus as u64 * 1000));
    let weight = facts.cgroup.cpu_weight.iter().map(|figure| (figure, true));
    for (figure, is_weight) in weight.chain(facts.cgroup.cpu_shares.iter().map(|figure| (figure, false))) {
        let number = figure.text.trim().parse().ok();
        let guess = number
            .and_then(|number| if is_weight { cpu::weight_to_request(number, cpus) } else { cpu::shares_to_request(number) });
        let reading = match guess {
            _ if !in_kubernetes => Reading::Nothing("a guess; only made in Kubernetes"),
            Some(guess) => Reading::Known((guess, CpuSource::Guess)),
            None => Reading::Nothing("says nothing for certain"),
        };
        search.look(&figure.path, Some(&figure.text), reading, |known| format!("a guess: {}", shown(known)));
    }
    let (text, reading) = match (facts.cpus, cpus) {
        (Some(count), Some(all)) => (Some(count.to_string()), Reading::Known((all, CpuSource::Affinity))),
        _ => (None, Reading::Nothing("not known")),
    };
    search.look("the CPUs it may run on", text.as_deref(), reading, shown);
    looks.extend(search.looks);
    Ok(search.found.map(|((millicores, source), from)| Cpu { millicores, source, from }))
}

/// The memory limit in bytes, and where it stands. None: there is none.
fn memory(reader: &Reader<'_>, facts: &Facts, looks: &mut Vec<Look>) -> Result<Option<(u64, String)>> {
    let mut search = Search { what: "memory", found: None, looks: Vec::new() };
    let limits = facts.cgroup.memory_max.iter().map(|figure| (figure, cgroup::memory_limit(&figure.text)));
    let lowest = limits.clone().filter_map(|(figure, limit)| Some((limit?, figure))).min_by_key(|(limit, _)| *limit);
    let unlimited = lowest.is_none() && !facts.cgroup.memory_max.is_empty();
    // For a limit that is not set the Downward API writes the node's allocatable memory; then the cgroup has no limit.
    let nodes_own = |bytes: u64| unlimited && facts.memory.is_some_and(|all| bytes > all / 2);
    let said = |bytes: u64| match bytes {
        0 => Reading::Nothing("0: no limit was set"),
        _ if nodes_own(bytes) => Reading::Nothing("the node's own: no limit was set"),
        _ => Reading::Known(bytes),
    };
    let shown = |bytes: u64| format!("{bytes} bytes");
    match reader.env.get(MEMORY_LIMIT) {
        Some(value) => {
            let given = Given { text: value.to_string_lossy().into_owned(), source: Source::Variable(MEMORY_LIMIT.to_owned()) };
            let bytes = parse_bytes(&given.text).map_err(|why| given.cannot("memory limit", why))?;
            search.look(MEMORY_LIMIT, Some(&given.text), said(bytes), shown);
        }
        None => search.look(MEMORY_LIMIT, None, Reading::Nothing("not set"), shown),
    }
    match &facts.podinfo_memory {
        Some(Figure { path, text }) if search.found.is_none() => {
            let bytes = parse_bytes(text).map_err(|why| bad_file("memory limit", path, text, why))?;
            search.look(path, Some(text), said(bytes), shown);
        }
        Some(Figure { path, text }) => search.look(path, Some(text), Reading::Nothing("not needed"), shown),
        None => search.look("the file memory_limit in LAMEDUCK_PODINFO", None, Reading::Nothing("not there"), shown),
    }
    match lowest.or(limits.clone().next().map(|(figure, _)| (0, figure))) {
        Some((0, figure)) => search.look(&figure.path, Some(&figure.text), Reading::Nothing("no limit"), shown),
        Some((limit, figure)) => search.look(&figure.path, Some(&figure.text), Reading::Known(limit), shown),
        None => search.look("the cgroup's memory limit", None, Reading::Nothing("not to be seen"), shown),
    }
    looks.extend(search.looks);
    Ok(search.found)
}

fn bad_file(what: &str, path: &str, text: &str, why: &str) -> Refused {
    Refused::BadFile(format!("cannot read {what} {:?} from {path}: {why}", text.trim()))
}

fn because(cpu: &Cpu, policy: &Policy, held: Option<&Memory>, decided: Decided) -> String {
    let by_cpu = workers::by_cpu(cpu.millicores, policy);
    let formula = format!("round({} x {}) + {} = {by_cpu}", cpu.millicores, policy.per_cpu, policy.extra);
    match (decided, held) {
        (Decided::Cpu, None) => format!("by CPU: {formula}"),
        (Decided::Cpu, Some(held)) => format!("by CPU: {formula}; memory would hold {}", held.holds()),
        (Decided::Min, _) => format!("--workers-min; by CPU: {formula}"),
        (Decided::Max, _) => format!("--workers-max; by CPU: {formula}"),
        (Decided::Memory, Some(held)) => {
            format!("by memory: ({} - {}) / {} = {}; by CPU: {formula}", held.limit, held.reserve, held.worker, held.holds())
        }
        (Decided::Memory, None) | (Decided::One, _) => format!("never fewer than 1; by CPU: {formula}"),
    }
}

const JAVA: &str = "JAVA_TOOL_OPTIONS";

/// The JVM's variable and its value with the option appended. None: the user set the option anywhere that a JVM or its start script looks,
/// or the variable is not text.
fn java_option(env: &Env, words: &[String], workers: u64) -> Option<(String, String)> {
    const OPTION: &str = "-XX:ActiveProcessorCount=";
    let set_in = |name: &&str| env.get(name).is_some_and(|value| value.to_string_lossy().contains(OPTION));
    let is_set = [JAVA, "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "JAVA_OPTS", "CATALINA_OPTS"].iter().any(set_in)
        || words.iter().any(|word| word.contains(OPTION));
    if is_set {
        return None;
    }
    let before = env.get(JAVA).map(OsString::from).map(|value| value.into_string());
    match before {
        None => Some((JAVA.to_owned(), format!("{OPTION}{workers}"))),
        Some(Ok(before)) => Some((JAVA.to_owned(), format!("{before} {OPTION}{workers}"))),
        // It is not text: it is left as it is.
        Some(Err(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::size::cgroup::Cgroup;
    use crate::plan::tests::with;

    fn figure(path: &str, text: &str) -> Figure {
        Figure { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn workers_go_where_the_server_reads_them_and_never_over_the_user_s() {
        let set = |options: &[&str], variables: &[(&str, &str)], facts: &Facts| {
            with(options, variables, facts).unwrap().services.remove(0).child_env
        };
        let pairs =
            |names: &[&str], count: &str| names.iter().map(|name| ((*name).to_owned(), count.to_owned())).collect::<Vec<_>>();
        let none = Facts::default();
        let request = [("LAMEDUCK_CPU_REQUEST_MILLIS", "1500")];
        assert_eq!(set(&["gunicorn"], &request, &none), pairs(&["LAMEDUCK_WORKERS", "WEB_CONCURRENCY"], "2"));
        assert_eq!(
            set(&["--cpu-request", "4", "gunicorn"], &request, &none),
            pairs(&["LAMEDUCK_WORKERS", "WEB_CONCURRENCY"], "4")
        );
        assert_eq!(set(&["gunicorn"], &[request[0], ("WEB_CONCURRENCY", "9")], &none), pairs(&["LAMEDUCK_WORKERS"], "2"));
        assert_eq!(set(&["uwsgi"], &[request[0], ("UWSGI_WORKERS", "9")], &none), pairs(&["LAMEDUCK_WORKERS"], "2"));
        assert_eq!(set(&["uwsgi"], &[request[0], ("LAMEDUCK_WORKERS", "9")], &none), pairs(&["UWSGI_PROCESSES"], "2"));
        assert_eq!(set(&["--workers-env", "N,M", "gunicorn"], &request, &none), pairs(&["LAMEDUCK_WORKERS", "N", "M"], "2"));
        // A request of 0 counts as none: the next source is asked.
        let node = Facts { cpus: Some(64), ..Facts::default() };
        assert_eq!(set(&["gunicorn"], &[("LAMEDUCK_CPU_REQUEST_MILLIS", "0")], &node), pairs(&["LAMEDUCK_WORKERS"], "64"));
        let limited = Facts {
            cgroup: Cgroup { cpu_max: vec![figure("/x/cpu.max", "250000 100000\n")], ..Cgroup::default() },
            ..node.clone()
        };
        assert_eq!(set(&["gunicorn"], &[], &limited), pairs(&["LAMEDUCK_WORKERS", "WEB_CONCURRENCY"], "3"));
        let guessed =
            Facts { cgroup: Cgroup { cpu_shares: Some(figure("/x/cpu.shares", "1536\n")), ..Cgroup::default() }, ..node.clone() };
        let kubernetes = [("KUBERNETES_SERVICE_HOST", "10.0.0.1")];
        assert_eq!(set(&["gunicorn"], &kubernetes, &guessed), pairs(&["LAMEDUCK_WORKERS"], "2"));
        assert_eq!(set(&["gunicorn"], &[], &guessed), pairs(&["LAMEDUCK_WORKERS"], "64"), "no guesses outside Kubernetes");
        let file = Facts { podinfo_cpu: Some(figure("/etc/podinfo/cpu_request", "2600\n")), ..node };
        assert_eq!(set(&["x"], &[], &file), pairs(&["LAMEDUCK_WORKERS"], "3"));
    }

    fn taken(options: &[&str], variables: &[(&str, &str)], facts: &Facts) -> Vec<String> {
        let size = with(options, variables, facts).unwrap().size;
        size.looks.iter().filter(|look| look.taken).map(|look| format!("{} {}: {}", look.what, look.place, look.means)).collect()
    }

    /// The first that is known and not 0, in the contract's order, each with the text that Kubernetes or the kernel writes.
    #[test]
    fn every_source_in_its_order() {
        let kubernetes = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        let all = Facts {
            podinfo_cpu: Some(figure("/etc/podinfo/cpu_request", "2600")),
            cgroup: Cgroup {
                cpu_max: vec![figure("/c/cpu.max", "350000 100000\n"), figure("/cpu.max", "300000 100000\n")],
                cpu_weight: Some(figure("/c/cpu.weight", "35\n")),
                ..Cgroup::default()
            },
            cpus: Some(64),
            ..Facts::default()
        };
        let variables = [("LAMEDUCK_CPU_REQUEST", "2"), ("LAMEDUCK_CPU_REQUEST_MILLIS", "1500"), kubernetes];
        assert_eq!(taken(&["--cpu-request", "500m", "x"], &variables, &all), ["cpu --cpu-request: 500m"]);
        let rounded =
            "cpu LAMEDUCK_CPU_REQUEST: 2000m (rounded up to whole cores, if by the Downward API with divisor 1; 1m is exact)";
        assert_eq!(taken(&["x"], &variables, &all), [rounded]);
        let zero = [("LAMEDUCK_CPU_REQUEST", "0"), variables[1], kubernetes];
        assert_eq!(taken(&["x"], &zero, &all), ["cpu LAMEDUCK_CPU_REQUEST_MILLIS: 1500m"]);
        let unset = [("LAMEDUCK_CPU_REQUEST_MILLIS", "0"), kubernetes];
        assert_eq!(taken(&["x"], &unset, &all), ["cpu /etc/podinfo/cpu_request: 2600m"]);
        let mut less = Facts { podinfo_cpu: Some(figure("/etc/podinfo/cpu_request", "0")), ..all };
        assert_eq!(taken(&["x"], &unset, &less), ["cpu /cpu.max: limit 3000m"], "the lowest");
        less.cgroup.cpu_max = vec![figure("/cpu.max", "max 100000\n")];
        assert_eq!(taken(&["x"], &unset, &less), ["cpu /c/cpu.weight: a guess: 250m"]);
        less.cgroup.cpu_weight = Some(figure("/c/cpu.weight", "100\n"));
        assert_eq!(taken(&["x"], &unset, &less), ["cpu the CPUs it may run on: 64000m"]);
        // The candidates of a weight cannot be more than there are CPUs.
        less.cgroup.cpu_weight = Some(figure("/c/cpu.weight", "59\n"));
        assert_eq!(taken(&["x"], &unset, &less), ["cpu the CPUs it may run on: 64000m"], "500m or 1500m");
        less.cpus = Some(1);
        assert_eq!(taken(&["x"], &unset, &less), ["cpu /c/cpu.weight: a guess: 500m"]);
    }

    #[test]
    fn a_figure_that_can_hardly_be_millicores_is_a_warning() {
        let plan = with(&["x"], &[("LAMEDUCK_CPU_REQUEST_MILLIS", "2")], &Facts::default()).unwrap();
        assert!(plan.warnings.iter().any(|warning| warning.contains("divisor: 1m")), "{:?}", plan.warnings);
    }

    #[test]
    fn a_bad_file_is_not_bad_usage() {
        let facts = Facts { podinfo_cpu: Some(figure("/p/cpu_request", "1500m\n")), ..Facts::default() };
        let Refused::BadFile(error) = with(&["x"], &[], &facts).unwrap_err() else { panic!("bad usage") };
        assert!(error.starts_with("cannot read CPU request \"1500m\" from /p/cpu_request: "), "{error}");
        let facts = Facts { podinfo_memory: Some(figure("/p/memory_limit", "?")), ..Facts::default() };
        assert!(matches!(with(&["x"], &[], &facts), Err(Refused::BadFile(_))));
    }

    #[test]
    fn memory_limits() {
        let gib = 1 << 30;
        let limit = |variables: &[(&str, &str)], facts: &Facts| with(&["x"], variables, facts).unwrap().size.memory;
        let mut facts = Facts { memory: Some(64 * gib), ..Facts::default() };
        assert_eq!(limit(&[], &facts), None);
        assert_eq!(limit(&[("LAMEDUCK_MEMORY_LIMIT", "536870912")], &facts), Some(gib / 2));
        assert_eq!(limit(&[("LAMEDUCK_MEMORY_LIMIT", "512Mi")], &facts), Some(gib / 2));
        facts.cgroup.memory_max = vec![figure("/c/memory.max", "2147483648\n"), figure("/memory.max", "1073741824\n")];
        assert_eq!(limit(&[], &facts), Some(gib));
        facts.podinfo_memory = Some(figure("/p/memory_limit", "268435456"));
        assert_eq!(limit(&[], &facts), Some(gib / 4));
        // No limit: Kubernetes writes what the node has.
        facts.cgroup.memory_max = vec![figure("/c/memory.max", "max\n")];
        facts.podinfo_memory = Some(figure("/p/memory_limit", &(60 * gib).to_string()));
        assert_eq!(limit(&[], &facts), None);
        assert_eq!(limit(&[("LAMEDUCK_MEMORY_LIMIT", &(60 * gib).to_string())], &facts), None);
    }

    #[test]
    fn memory_has_its_say() {
        let size = |options: &[&str]| {
            let variables = [("LAMEDUCK_CPU_REQUEST_MILLIS", "8000"), ("LAMEDUCK_MEMORY_LIMIT", "1Gi")];
            with(&[options, &["x"]].concat(), &variables, &Facts::default()).unwrap().size
        };
        assert_eq!(size(&[]).workers, Some(8));
        let held = size(&["--worker-memory", "200Mi", "--memory-reserve", "100Mi"]);
        assert_eq!(held.workers, Some(4));
        assert!(held.because.starts_with("by memory: (1073741824 - 104857600) / 209715200 = 4"), "{}", held.because);
        assert!(size(&["--workers-max", "3"]).because.starts_with("--workers-max"));
        assert!(size(&["--workers-min", "9"]).because.starts_with("--workers-min"));
        assert!(
            size(&["--worker-memory", "1Mi"]).because.starts_with("by CPU: round(8000m x 1) + 0 = 8; memory would hold 1024")
        );
        let no_limit = with(&["--worker-memory", "1Mi", "x"], &[("LAMEDUCK_CPU_REQUEST", "1")], &Facts::default()).unwrap();
        assert!(no_limit.warnings.iter().any(|warning| warning.contains("no memory limit")), "{:?}", no_limit.warnings);
    }

    #[test]
    fn the_jvm_s_option_is_appended_and_never_set_twice() {
        let set = |options: &[&str], variables: &[(&str, &str)]| {
            let variables = [&[("LAMEDUCK_CPU_REQUEST", "1500m")], variables].concat();
            let gained = with(options, &variables, &Facts::default()).unwrap().services.remove(0).child_env;
            gained.into_iter().find(|(name, _)| name == JAVA).map(|(_, value)| value)
        };
        let option = |text: &str| Some(text.to_owned());
        assert_eq!(set(&["java", "-jar", "x"], &[]), option("-XX:ActiveProcessorCount=2"));
        assert_eq!(set(&["java"], &[(JAVA, "-Xmx1g")]), option("-Xmx1g -XX:ActiveProcessorCount=2"));
        assert_eq!(set(&["java"], &[(JAVA, "-XX:ActiveProcessorCount=9")]), None);
        assert_eq!(set(&["java"], &[("JDK_JAVA_OPTIONS", "-XX:ActiveProcessorCount=9")]), None);
        assert_eq!(set(&["java", "-XX:ActiveProcessorCount=9"], &[]), None);
        assert_eq!(set(&["nginx"], &[]), None);
    }

    #[test]
    fn heaps_are_limited_where_that_is_asked_for() {
        let gained = |options: &[&str], variables: &[(&str, &str)], facts: &Facts| {
            let plan = with(options, variables, facts).unwrap();
            let gained = plan.services[0].child_env.clone().into_iter().filter(|(name, _)| name != "LAMEDUCK_WORKERS");
            gained.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        let limit = ("LAMEDUCK_MEMORY_LIMIT", "1Gi");
        let machine = Facts { memory: Some(4 << 30), ..Facts::default() };
        let java = "-XX:MaxRAMPercentage=12.5000 -XX:MinRAMPercentage=12.5000";
        assert_eq!(gained(&["java"], &[limit], &machine), [""; 0], "not asked for");
        assert_eq!(gained(&["--heap", "50", "java"], &[limit], &machine), [format!("JAVA_TOOL_OPTIONS={java}")]);
        assert_eq!(gained(&["java"], &[limit, ("LAMEDUCK_HEAP", "50")], &machine), [format!("JAVA_TOOL_OPTIONS={java}")]);
        // Behind the count of processors, and what the user has there.
        let variables = [limit, ("LAMEDUCK_CPU_REQUEST", "2"), ("JAVA_TOOL_OPTIONS", "-Dx")];
        let expected = format!("JAVA_TOOL_OPTIONS=-Dx -XX:ActiveProcessorCount=2 {java}");
        assert_eq!(gained(&["--heap", "50", "java"], &variables, &machine), [expected]);
        // A percentage is of the cgroup's limit where there is one.
        let mut cgroup = machine.clone();
        cgroup.cgroup.memory_max = vec![figure("/c/memory.max", "max\n"), figure("/memory.max", "2147483648\n")];
        let java = "-XX:MaxRAMPercentage=25.0000 -XX:MinRAMPercentage=25.0000";
        assert_eq!(gained(&["--heap", "50", "java"], &[limit], &cgroup), [format!("JAVA_TOOL_OPTIONS={java}")]);
        let reserve = ["--heap", "50", "--memory-reserve", "512Mi", "./app"];
        assert_eq!(gained(&reserve, &[limit], &machine), ["GOMEMLIMIT=268435456"]);
        let unlimited = with(&["--heap", "auto", "./app"], &[], &machine).unwrap();
        assert_eq!(unlimited.services[0].child_env, []);
        assert!(unlimited.warnings.iter().any(|warning| warning.contains("--heap has no effect")), "{:?}", unlimited.warnings);
    }

    #[test]
    fn options_that_are_not_text_are_left_alone() {
        let not_text = std::os::unix::ffi::OsStringExt::from_vec(vec![0xff]);
        let env = Env::new([("NODE_OPTIONS".to_owned(), not_text)]);
        let memory = heap::Memory { limit: 1 << 30, reserve: 0, visible: 1 << 30 };
        let mut child_env = Vec::new();
        let size = Size { heap: Some((Heap::Auto, Some(memory))), ..Size::default() };
        let settings = size.heap(&env, 1, &["node".to_owned()], &mut child_env);
        assert_eq!((settings.not_set, child_env), (vec!["NODE_OPTIONS is not UTF-8".to_owned()], Vec::new()));
    }

    #[test]
    fn words_are_expanded_by_what_the_app_will_find() {
        let command = |options: &[&str], variables: &[(&str, &str)]| {
            let plan = with(options, &[&[("LAMEDUCK_CPU_REQUEST", "1500m")], variables].concat(), &Facts::default()).unwrap();
            plan.services[0].command.clone().into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>()
        };
        let expand = ["--expand-args", "x", "-w=${LAMEDUCK_WORKERS}", "${LAMEDUCK_CPU_MILLIS}", "$HOME", "${A:-b}"];
        assert_eq!(command(&expand, &[]), ["x", "-w=2", "1500", "$HOME", "b"]);
        assert_eq!(command(&expand, &[("LAMEDUCK_WORKERS", "7"), ("A", "c")]), ["x", "-w=7", "1500", "$HOME", "c"]);
        assert_eq!(command(&["x", "${A}"], &[]), ["x", "${A}"], "only where asked for");
    }
}
