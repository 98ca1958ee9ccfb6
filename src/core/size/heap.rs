//! `--heap`: which variables make the heap of each service's runtime fit into the memory limit. Nothing is set over what the user has set.
//! docs/prepare.md has the sources, and what each runtime does with these variables.

use std::ffi::OsString;

use crate::core::servers;

const MIB: u64 = 1 << 20;

/// `auto` leaves this much of a service's memory to what is not heap, or half of the memory where that is less.
const BESIDE_THE_HEAP: u64 = 512 * MIB;

/// A heap below this is not set. .NET never makes its own smaller, and Node.js 20 does not start with less than 5 MiB.
const LEAST: u64 = 20 * MIB;

/// `--heap`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heap {
    /// What is usual for each runtime.
    Auto,
    /// This percentage of a service's memory, 1 to 100.
    Percent(u8),
}

impl Heap {
    pub fn parse(text: &str) -> Result<Heap, &'static str> {
        if text == "auto" {
            return Ok(Heap::Auto);
        }
        let number = text.strip_suffix('%').unwrap_or(text);
        let percent = number.parse().ok().filter(|percent| (1..=100).contains(percent) && !number.starts_with('+'));
        percent.map(Heap::Percent).ok_or("neither auto nor a percentage from 1 to 100 (try auto or 75)")
    }

    /// The heap in bytes that a runtime gets out of `memory` bytes.
    fn of(self, memory: u64, runtime: Runtime) -> u64 {
        let percent = |percent: u8| (u128::from(memory) * u128::from(percent) / 100) as u64;
        match (self, runtime) {
            (Heap::Percent(given), _) => percent(given),
            (Heap::Auto, Runtime::Go) => percent(90),
            (Heap::Auto, Runtime::DotNet) => percent(75),
            (Heap::Auto, _) => memory.saturating_sub(BESIDE_THE_HEAP).clamp(percent(50), percent(75)),
        }
    }
}

/// In bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Memory {
    pub limit: u64,
    /// `--memory-reserve`
    pub reserve: u64,
    /// What a runtime itself takes for the machine's memory, and its percentages are of: the cgroup's limit, or all memory if it has none.
    pub visible: u64,
}

/// What is set for one service, and why other things are not.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    pub set: Vec<Variable>,
    /// Whole sentences without a full stop.
    pub not_set: Vec<String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Variable {
    pub name: &'static str,
    /// All of it: what the user has there comes first.
    pub value: String,
    pub why: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Runtime {
    DotNet,
    Go,
    Java,
    Node,
    Python,
    Ruby,
}

/// Programs by whose names a runtime is known, without path and version.
const PROGRAMS: &[(Runtime, &[&str])] = &[
    (Runtime::DotNet, &["dotnet"]),
    (Runtime::Go, &["caddy", "traefik"]),
    (Runtime::Java, &["catalina.sh", "java"]),
    (Runtime::Node, &["node", "nodejs", "npm", "npx", "pnpm", "yarn"]),
    (Runtime::Python, &["celery", "gunicorn", "hypercorn", "pypy", "python", "uvicorn", "waitress-serve"]),
    (Runtime::Ruby, &["bundle", "puma", "rackup", "rails", "rake", "ruby", "sidekiq", "thin", "unicorn", "unicorn_rails"]),
];

/// What to set for a service, by its command's words and its environment, which `variable` looks up. None for `memory`: there is no limit.
/// So many `services` share it in equal parts, and so do several runtimes of one service.
pub fn settings<S: AsRef<str>>(
    heap: Heap,
    memory: Option<Memory>,
    services: usize,
    words: &[S],
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Settings {
    let Some(memory) = memory else { return Settings::not("there is no memory limit") };
    let mut runtimes = runtimes(words);
    let guessed = runtimes.is_empty();
    if guessed {
        if let Some(server) = servers::recognise(words) {
            return Settings::not(format!("no variable limits the memory of {}", server.name));
        }
        // A Go program has any name, and other programs do not read its variable.
        runtimes.push(Runtime::Go);
    }
    let user = User { words: pieces(words), variable };
    let limit = memory.limit.min(memory.visible).saturating_sub(memory.reserve);
    let parts = (services.max(1) * runtimes.len()) as u64;
    let mut settings = Settings::default();
    for runtime in runtimes {
        let part = Part { heap, runtime, bytes: limit / parts, parts, visible: memory.visible };
        match part.variable(&user) {
            Ok(mut variable) => {
                if guessed {
                    variable.why.push_str(", if it is a Go program");
                }
                settings.set.push(variable);
            }
            Err(why) => settings.not_set.push(why),
        }
    }
    settings
}

impl Settings {
    fn not(why: impl Into<String>) -> Settings {
        Settings { set: Vec::new(), not_set: vec![why.into()] }
    }
}

/// The runtimes that a command's words name, each once.
fn runtimes<S: AsRef<str>>(words: &[S]) -> Vec<Runtime> {
    let mut runtimes = Vec::new();
    for name in servers::programs(words) {
        let known = PROGRAMS.iter().find(|(_, programs)| programs.contains(&name.as_str()));
        if let Some((runtime, _)) = known.filter(|(runtime, _)| !runtimes.contains(runtime)) {
            runtimes.push(*runtime);
        }
    }
    runtimes
}

/// The words as a shell or a runtime would see them, good enough to find options and assignments: also those within `sh -c '…'`.
fn pieces<S: AsRef<str>>(words: &[S]) -> Vec<String> {
    let split =
        |text: &str| text.split([' ', '\t', '\n', '"', '\'', ';', '&', '|', '(', ')']).map(str::to_owned).collect::<Vec<_>>();
    words.iter().flat_map(|word| split(word.as_ref())).filter(|piece| !piece.is_empty()).collect()
}

/// What the user has set, and where.
struct User<'a> {
    /// In the command.
    words: Vec<String>,
    variable: &'a dyn Fn(&str) -> Option<OsString>,
}

impl User<'_> {
    /// An empty variable counts as unset, as it does for the runtimes.
    fn value(&self, name: &str) -> Option<OsString> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn assigns(&self, name: &str) -> bool {
        self.words.iter().any(|word| word.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')))
    }

    /// The first of these variables that has a value, here or in the command.
    fn sets(&self, names: &[&str]) -> Option<String> {
        names.iter().find(|name| self.value(name).is_some() || self.assigns(name)).map(|name| format!("{name} is set"))
    }

    /// Where an option stands, in these variables or in the command.
    fn has_option(&self, variables: &[&str], is_option: impl Fn(&str) -> bool) -> Option<String> {
        let found = |words: &[String]| words.iter().find(|word| is_option(word)).cloned();
        if let Some(option) = found(&self.words) {
            return Some(format!("the command has {option}"));
        }
        variables.iter().find_map(|name| {
            let option = found(&pieces(&[self.value(name)?.to_string_lossy()]))?;
            Some(format!("{name} has {option}"))
        })
    }

    /// The variable with options behind what it has already.
    fn append(&self, name: &'static str, options: &str) -> Result<String, String> {
        if self.assigns(name) {
            return Err(format!("the command sets {name}"));
        }
        match self.value(name).map(OsString::into_string) {
            None => Ok(options.to_owned()),
            Some(Ok(before)) => Ok(format!("{before} {options}")),
            Some(Err(_)) => Err(format!("{name} is not UTF-8")),
        }
    }
}

/// One runtime's part of the memory.
struct Part {
    heap: Heap,
    runtime: Runtime,
    bytes: u64,
    /// So many parts there are.
    parts: u64,
    visible: u64,
}

const JAVA: &str = "JAVA_TOOL_OPTIONS";
const NODE: &str = "NODE_OPTIONS";

impl Part {
    /// What to set, or why nothing is.
    fn variable(&self, user: &User) -> Result<Variable, String> {
        let heap = self.heap.of(self.bytes, self.runtime);
        let limited = matches!(self.runtime, Runtime::DotNet | Runtime::Go | Runtime::Java | Runtime::Node);
        if limited && heap < LEAST {
            return Err(format!("a heap of {} of {} would be too small to start with", mib(heap), self.share()));
        }
        let (name, value) = match self.runtime {
            Runtime::DotNet => ("DOTNET_GCHeapHardLimitPercent", self.dotnet(heap, user)?),
            Runtime::Go => ("GOMEMLIMIT", go(heap, user)?),
            Runtime::Java => (JAVA, self.java(heap, user)?),
            Runtime::Node => (NODE, node(heap, user)?),
            Runtime::Python => return Err("no variable limits a heap of Python".to_owned()),
            Runtime::Ruby => {
                let why = "no variable limits a heap of Ruby; with two arenas malloc keeps less".to_owned();
                return Ok(Variable { name: "MALLOC_ARENA_MAX", value: ruby(user)?, why });
            }
        };
        Ok(Variable { name, value, why: format!("a heap of {} of {}", mib(heap), self.share()) })
    }

    fn share(&self) -> String {
        match self.parts {
            1 => mib(self.bytes),
            parts => format!("{}, 1 of {parts} parts", mib(self.bytes)),
        }
    }

    /// In hexadecimal, as .NET reads numbers in variables.
    fn dotnet(&self, heap: u64, user: &User) -> Result<String, String> {
        const LIMITS: [&str; 8] = ["", "Percent", "SOH", "SOHPercent", "LOH", "LOHPercent", "POH", "POHPercent"];
        let names: Vec<String> = ["DOTNET", "COMPlus"]
            .iter()
            .flat_map(|prefix| LIMITS.map(|limit| format!("{prefix}_GCHeapHardLimit{limit}")))
            .collect();
        if let Some(set) = user.sets(&names.iter().map(String::as_str).collect::<Vec<_>>()) {
            return Err(set);
        }
        let percent = (u128::from(heap) * 100 / u128::from(self.visible.max(1))).min(99);
        match (self.heap, percent) {
            (_, 0) => Err(format!("a heap of {} is less than 1% of the memory that .NET sees", mib(heap))),
            (Heap::Auto, 75) => Err("75% of the memory limit is .NET's own default".to_owned()),
            _ => Ok(format!("{percent:X}")),
        }
    }

    /// Both percentages: HotSpot obeys the second one, and not the first, where there is little memory. With a point: Java 8 and 10 read no whole
    /// numbers there.
    fn java(&self, heap: u64, user: &User) -> Result<String, String> {
        const VARIABLES: [&str; 7] =
            [JAVA, "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "OPENJ9_JAVA_OPTIONS", "JAVA_OPTS", "CATALINA_OPTS", "JVM_OPTS"];
        const OPTIONS: [&str; 7] =
            ["-Xmx", "-mx", "-XX:MaxHeapSize", "-XX:MaxRAM", "-XX:MinRAM", "-XX:+AggressiveHeap", "-XX:-UseContainerSupport"];
        if let Some(set) = user.has_option(&VARIABLES, |word| OPTIONS.iter().any(|option| word.starts_with(option))) {
            return Err(set);
        }
        let millionths = (u128::from(heap) * 1_000_000 / u128::from(self.visible.max(1))).min(1_000_000);
        let percent = format!("{}.{:04}", millionths / 10_000, millionths % 10_000);
        user.append(JAVA, &format!("-XX:MaxRAMPercentage={percent} -XX:MinRAMPercentage={percent}"))
    }
}

/// In plain bytes: a unit that Go does not know ends the program at its start.
fn go(heap: u64, user: &User) -> Result<String, String> {
    user.sets(&["GOMEMLIMIT", "AUTOMEMLIMIT"]).map_or(Ok(heap.to_string()), Err)
}

/// In MiB. Not --max-old-space-size-percentage, which only the newest versions know, and which wins over the user's own limit in the command.
fn node(heap: u64, user: &User) -> Result<String, String> {
    let is_limit = |word: &str| {
        let option = word.replace('_', "-");
        option.starts_with("--max-old-space-size") || option.starts_with("--max-heap-size")
    };
    user.has_option(&[NODE], is_limit).map_or(Ok(()), Err)?;
    user.append(NODE, &format!("--max-old-space-size={}", heap / MIB))
}

/// Another malloc does not read this variable, and who tunes malloc has a reason to.
fn ruby(user: &User) -> Result<String, String> {
    let preload = user.value("LD_PRELOAD").unwrap_or_default().to_string_lossy().into_owned();
    if let Some(other) = ["jemalloc", "tcmalloc", "mimalloc"].iter().find(|other| preload.contains(*other)) {
        return Err(format!("LD_PRELOAD has {other}"));
    }
    user.sets(&["MALLOC_ARENA_MAX", "MALLOC_CONF", "GLIBC_TUNABLES"]).map_or(Ok("2".to_owned()), Err)
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes / MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn limit(limit: u64) -> Option<Memory> {
        Some(Memory { limit, reserve: 0, visible: limit })
    }

    fn all(heap: Heap, memory: Option<Memory>, services: &[&[&str]], variables: &[(&str, &str)]) -> Vec<Settings> {
        let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
        services.iter().map(|words| settings(heap, memory, services.len(), words, &variable)).collect()
    }

    /// Of one service: `NAME=value` of what is set, and the reasons for what is not.
    #[track_caller]
    fn one(heap: Heap, memory: Option<Memory>, words: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
        let mut settings = all(heap, memory, &[words], variables);
        assert_eq!(settings.len(), 1);
        let Settings { set, not_set } = settings.remove(0);
        set.iter().map(|variable| format!("{}={}", variable.name, variable.value)).chain(not_set).collect()
    }

    #[test]
    fn percentages_are_read() {
        for (text, heap) in
            [("auto", Heap::Auto), ("75", Heap::Percent(75)), ("1%", Heap::Percent(1)), ("100", Heap::Percent(100))]
        {
            assert_eq!(Heap::parse(text), Ok(heap), "{text}");
        }
        for text in ["", "0", "101", "256", "-1", "+75", "75.5", "%", "75%%", "AUTO", " 75", "75 %", "512Mi"] {
            assert!(Heap::parse(text).is_err(), "{text:?}");
        }
    }

    /// The heaps that the sources in docs/prepare.md give for these sizes.
    #[test]
    fn auto_is_what_is_usual_for_each_runtime() {
        let heap = |memory: u64, runtime| Heap::Auto.of(memory * MIB, runtime) / MIB;
        for runtime in [Runtime::Java, Runtime::Node] {
            let rows = [(200, 100), (512, 256), (1024, 512), (1536, 1024), (2048, 1536), (8192, 6144)];
            assert_eq!(rows.map(|(memory, _)| (memory, heap(memory, runtime))), rows, "{runtime:?}");
        }
        assert_eq!([200, 1000, 8000].map(|memory| heap(memory, Runtime::Go)), [180, 900, 7200]);
        assert_eq!([200, 1000, 8000].map(|memory| heap(memory, Runtime::DotNet)), [150, 750, 6000]);
        assert_eq!(Heap::Percent(30).of(1000, Runtime::Go), 300);
        assert_eq!(Heap::Percent(100).of(u64::MAX, Runtime::Java), u64::MAX);
    }

    #[test]
    fn each_runtime_has_a_variable_of_its_own() {
        let half = limit(GIB / 2);
        for (words, auto, percent) in [
            (&["./server"][..], "GOMEMLIMIT=483183820", "GOMEMLIMIT=322122547"),
            (&["caddy", "run"], "GOMEMLIMIT=483183820", "GOMEMLIMIT=322122547"),
            (
                &["java", "-jar", "x"],
                "JAVA_TOOL_OPTIONS=-XX:MaxRAMPercentage=50.0000 -XX:MinRAMPercentage=50.0000",
                "JAVA_TOOL_OPTIONS=-XX:MaxRAMPercentage=59.9999 -XX:MinRAMPercentage=59.9999",
            ),
            (&["node", "x.js"], "NODE_OPTIONS=--max-old-space-size=256", "NODE_OPTIONS=--max-old-space-size=307"),
            (&["npm", "start"], "NODE_OPTIONS=--max-old-space-size=256", "NODE_OPTIONS=--max-old-space-size=307"),
            (&["dotnet", "x.dll"], "75% of the memory limit is .NET's own default", "DOTNET_GCHeapHardLimitPercent=3B"),
            (&["bundle", "exec", "puma"], "MALLOC_ARENA_MAX=2", "MALLOC_ARENA_MAX=2"),
            (&["ruby", "x.rb"], "MALLOC_ARENA_MAX=2", "MALLOC_ARENA_MAX=2"),
            (&["python3", "x.py"], "no variable limits a heap of Python", "no variable limits a heap of Python"),
            (&["gunicorn", "x"], "no variable limits a heap of Python", "no variable limits a heap of Python"),
            (&["nginx"], "no variable limits the memory of nginx", "no variable limits the memory of nginx"),
            (&["postgres"], "no variable limits the memory of postgres", "no variable limits the memory of postgres"),
        ] {
            assert_eq!(one(Heap::Auto, half, words, &[]), [auto], "{words:?}");
            assert_eq!(one(Heap::Percent(60), half, words, &[]), [percent], "{words:?}");
        }
    }

    #[test]
    fn without_a_limit_nothing_is_set() {
        for words in [&["node"][..], &["java"], &["./go"], &["ruby"], &["dotnet"], &["nginx"]] {
            assert_eq!(one(Heap::Percent(50), None, words, &[]), ["there is no memory limit"]);
        }
    }

    #[test]
    fn what_the_user_has_set_stays() {
        let memory = limit(GIB);
        let java = ["java", "-jar", "x"];
        for (words, variable, why) in [
            (&["./go"][..], ("GOMEMLIMIT", "off"), "GOMEMLIMIT is set"),
            (&["./go"], ("AUTOMEMLIMIT", "0.8"), "AUTOMEMLIMIT is set"),
            (&["env", "GOMEMLIMIT=1GiB", "./go"], ("X", ""), "GOMEMLIMIT is set"),
            (&["sh", "-c", "GOMEMLIMIT=1GiB exec ./go"], ("X", ""), "GOMEMLIMIT is set"),
            (&java, ("JAVA_TOOL_OPTIONS", "-Dx -Xmx1g"), "JAVA_TOOL_OPTIONS has -Xmx1g"),
            (&java, ("JDK_JAVA_OPTIONS", "\"-XX:MaxHeapSize=1g\""), "JDK_JAVA_OPTIONS has -XX:MaxHeapSize=1g"),
            (&java, ("_JAVA_OPTIONS", "-XX:MaxRAM=1g"), "_JAVA_OPTIONS has -XX:MaxRAM=1g"),
            (&java, ("JAVA_OPTS", "-XX:MaxRAMPercentage=30"), "JAVA_OPTS has -XX:MaxRAMPercentage=30"),
            (&java, ("CATALINA_OPTS", "-XX:MinRAMFraction=2"), "CATALINA_OPTS has -XX:MinRAMFraction=2"),
            (&java, ("JVM_OPTS", "-XX:-UseContainerSupport"), "JVM_OPTS has -XX:-UseContainerSupport"),
            (&["java", "-Xmx1g", "x"], ("X", ""), "the command has -Xmx1g"),
            (&["sh", "-c", "exec java '-Xmx1g' x"], ("X", ""), "the command has -Xmx1g"),
            (&["env", "JAVA_TOOL_OPTIONS=", "java"], ("X", ""), "the command sets JAVA_TOOL_OPTIONS"),
            (&["node", "x"], ("NODE_OPTIONS", "--max-old-space-size=9"), "NODE_OPTIONS has --max-old-space-size=9"),
            (&["node", "x"], ("NODE_OPTIONS", "-r y --max_old_space_size=9"), "NODE_OPTIONS has --max_old_space_size=9"),
            (&["node", "--max-old-space-size", "9", "x"], ("X", ""), "the command has --max-old-space-size"),
            (&["node", "--max-old-space-size-percentage=9", "x"], ("X", ""), "the command has --max-old-space-size-percentage=9"),
            (&["node", "--max-heap-size=9", "x"], ("X", ""), "the command has --max-heap-size=9"),
            (&["sh", "-c", "NODE_OPTIONS='--trace-gc' node x"], ("X", ""), "the command sets NODE_OPTIONS"),
            (&["dotnet", "x"], ("DOTNET_GCHeapHardLimit", "1000"), "DOTNET_GCHeapHardLimit is set"),
            (&["dotnet", "x"], ("COMPlus_GCHeapHardLimitPOHPercent", "1"), "COMPlus_GCHeapHardLimitPOHPercent is set"),
            (&["puma"], ("MALLOC_ARENA_MAX", "4"), "MALLOC_ARENA_MAX is set"),
            (&["puma"], ("MALLOC_CONF", "x"), "MALLOC_CONF is set"),
            (&["puma"], ("GLIBC_TUNABLES", "malloc.arena_max=1"), "GLIBC_TUNABLES is set"),
            (&["puma"], ("LD_PRELOAD", "/lib/libjemalloc.so.2"), "LD_PRELOAD has jemalloc"),
        ] {
            assert_eq!(one(Heap::Percent(60), memory, words, &[variable]), [why], "{words:?} {variable:?}");
        }
    }

    #[test]
    fn options_are_appended() {
        let memory = limit(GIB);
        let node = |options| one(Heap::Percent(50), memory, &["node"], &[("NODE_OPTIONS", options)]);
        assert_eq!(node(""), ["NODE_OPTIONS=--max-old-space-size=512"], "an empty variable is none");
        assert_eq!(node("--inspect -r x"), ["NODE_OPTIONS=--inspect -r x --max-old-space-size=512"]);
        // Semi-spaces are no heap limit, nor is the size to start with.
        assert_eq!(node("--max-semi-space-size=1"), ["NODE_OPTIONS=--max-semi-space-size=1 --max-old-space-size=512"]);
        let options = "-XX:ActiveProcessorCount=2 -Xms64m";
        let java = one(Heap::Percent(50), memory, &["java"], &[("JAVA_TOOL_OPTIONS", options)]);
        assert_eq!(java, [format!("JAVA_TOOL_OPTIONS={options} -XX:MaxRAMPercentage=50.0000 -XX:MinRAMPercentage=50.0000")]);
    }

    #[test]
    fn services_and_their_runtimes_share_the_memory() {
        let services: &[&[&str]] = &[&["java"], &["./go"], &["nginx"], &["sh", "-c", "node a & java b"]];
        let memory = Some(Memory { limit: 2 * GIB, reserve: GIB, visible: 2 * GIB });
        let settings = all(Heap::Percent(50), memory, services, &[]);
        let set: Vec<Vec<&str>> =
            settings.iter().map(|one| one.set.iter().map(|variable| variable.value.as_str()).collect()).collect();
        let java = |percent| format!("-XX:MaxRAMPercentage={percent} -XX:MinRAMPercentage={percent}");
        assert_eq!(
            set,
            [vec![java("6.2500").as_str()], vec!["134217728"], vec![], vec!["--max-old-space-size=64", java("3.1250").as_str()],]
        );
        assert_eq!(settings[0].set[0].why, "a heap of 128 MiB of 256 MiB, 1 of 4 parts");
        assert_eq!(settings[1].set[0].why, "a heap of 128 MiB of 256 MiB, 1 of 4 parts, if it is a Go program");
        assert_eq!(settings[3].set[0].why, "a heap of 64 MiB of 128 MiB, 1 of 8 parts");
        // A share of .NET's is set, by `auto` too.
        let shared = all(Heap::Auto, limit(GIB), &[&["dotnet", "a"], &["dotnet", "b"]], &[]);
        assert!(shared.iter().all(|one| one.set[0].value == "25"), "37% in hexadecimal: {shared:?}");
        let reserved = Some(Memory { limit: GIB, reserve: GIB / 2, visible: GIB });
        assert_eq!(one(Heap::Auto, reserved, &["dotnet", "a"], &[]), ["DOTNET_GCHeapHardLimitPercent=25"]);
    }

    /// A percentage is of what the runtime sees: the machine's memory where the limit is written in LAMEDUCK_MEMORY_LIMIT alone.
    #[test]
    fn percentages_are_of_what_the_runtime_sees() {
        let machine = Some(Memory { limit: GIB, reserve: 0, visible: 64 * GIB });
        let java = "JAVA_TOOL_OPTIONS=-XX:MaxRAMPercentage=0.7812 -XX:MinRAMPercentage=0.7812";
        assert_eq!(one(Heap::Percent(50), machine, &["java"], &[]), [java]);
        let dotnet = "a heap of 512 MiB is less than 1% of the memory that .NET sees";
        assert_eq!(one(Heap::Percent(50), machine, &["dotnet"], &[]), [dotnet]);
        // A limit above what there is cannot be used.
        let boast = Some(Memory { limit: 64 * GIB, reserve: 0, visible: GIB });
        assert_eq!(one(Heap::Percent(50), boast, &["./go"], &[]), ["GOMEMLIMIT=536870912"]);
        assert_eq!(one(Heap::Percent(100), boast, &["dotnet"], &[]), ["DOTNET_GCHeapHardLimitPercent=63"]);
    }

    #[test]
    fn too_little_memory_is_left_alone() {
        let memory = limit(36 * MIB);
        for words in [&["node"][..], &["java"], &["./go"], &["dotnet"]] {
            let why = "a heap of 18 MiB of 36 MiB would be too small to start with";
            assert_eq!(one(Heap::Percent(50), memory, words, &[]), [why]);
        }
        let all_reserved = Some(Memory { limit: GIB, reserve: 2 * GIB, visible: GIB });
        assert_eq!(one(Heap::Auto, all_reserved, &["node"], &[]), ["a heap of 0 MiB of 0 MiB would be too small to start with"]);
        assert_eq!(one(Heap::Auto, all_reserved, &["ruby"], &[]), ["MALLOC_ARENA_MAX=2"]);
    }
}
