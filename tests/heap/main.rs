//! `--heap` against real runtimes inside a real memory limit: each is asked which limit it obeys, and a program that would be killed lives.
//! .NET is not in Debian: of it only the value is tested, in src/core/heap.rs.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::Duration;

use lameduck::core::size::heap::{self, Heap, Memory};

const LAMEDUCK: &str = env!("CARGO_BIN_EXE_lameduck");
const MIB: u64 = 1 << 20;
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A cgroup with a limit of memory, of version 1 or 2, that ends with the test.
struct Limit {
    group: String,
    bytes: u64,
}

impl Limit {
    fn new(mib: u64) -> Limit {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("lameduck-heap-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let bytes = mib * MIB;
        let made = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")].iter().find_map(
            |(mount, file)| {
                let limit = Limit { group: format!("{mount}/{name}"), bytes };
                fs::create_dir(&limit.group).ok()?;
                fs::write(format!("{}/{file}", limit.group), bytes.to_string()).ok()?;
                // Where there is swap, that would be filled first.
                let _ = fs::write(format!("{}/memory.swap.max", limit.group), "0");
                let _ = fs::write(format!("{}/memory.memsw.limit_in_bytes", limit.group), bytes.to_string());
                Some(limit)
            },
        );
        made.expect("a cgroup for memory: run the tests as root (tests/run does)")
    }

    /// The command as it is, within the limit.
    fn plain(&self, variables: &[(&str, &str)], words: &[&str]) -> Output {
        let join = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.group);
        let mut command = Command::new("sh");
        command.args(["-c", &join, "sh"]).args(words).env_clear().env("PATH", PATH).envs(variables.iter().copied());
        command.output().expect("sh")
    }

    /// The same with `--heap`.
    fn heap(&self, heap: &str, variables: &[(&str, &str)], words: &[&str]) -> Output {
        self.plain(variables, &[&[LAMEDUCK, "exec", "--heap", heap, "--"], words].concat())
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // Its processes have ended, and leave it soon.
        for _ in 0..200 {
            if fs::remove_dir(&self.group).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The number in the answer, where the program ended well.
#[track_caller]
fn number(output: &Output) -> u64 {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    text.trim().parse().unwrap_or_else(|_| panic!("no number: {output:?}"))
}

/// A file of this test run's, made once.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).expect("a file");
    path
}

/// A program in Go, built.
fn go(name: &str, text: &str) -> String {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _lock = ONE_AT_A_TIME.lock();
    let source = file(&format!("{name}.go"), text);
    let program = source.with_extension("");
    let cache = source.with_file_name("go-cache");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).args([&program, &source]).env("GO111MODULE", "off").env("GOCACHE", cache).env("PATH", PATH);
    assert!(build.status().expect("go: tests/run installs it").success(), "cannot build {name}");
    program.to_str().expect("UTF-8").to_owned()
}

static GO_LIMIT: LazyLock<String> = LazyLock::new(|| {
    go("limit", "package main\nimport (\"fmt\"; \"runtime/debug\")\nfunc main() { fmt.Println(debug.SetMemoryLimit(-1)) }\n")
});

#[test]
fn go_obeys_the_limit_and_the_users_wins() {
    let program = [GO_LIMIT.as_str()];
    let limit = Limit::new(200);
    assert_eq!(number(&limit.plain(&[], &program)), i64::MAX as u64, "without it there is none");
    assert_eq!(number(&limit.heap("auto", &[], &program)), 180 * MIB);
    assert_eq!(number(&limit.heap("50", &[], &program)), 100 * MIB);
    assert_eq!(number(&limit.heap("50", &[("GOMEMLIMIT", "64MiB")], &program)), 64 * MIB);
    assert_eq!(number(&limit.heap("50", &[("GOMEMLIMIT", "off")], &program)), i64::MAX as u64);
    assert_eq!(number(&limit.heap("50", &[("GOMEMLIMIT", "")], &program)), 100 * MIB, "an empty one is none");
    assert_eq!(number(&limit.heap("50", &[], &["env", "GOMEMLIMIT=64MiB", program[0]])), 64 * MIB);
    // Why it is plain bytes.
    assert_eq!(limit.plain(&[("GOMEMLIMIT", "180M")], &program).status.code(), Some(2));
}

/// 90 MiB in use and much garbage, in 200 MiB: the heap would grow to twice of what is in use before anything is collected.
#[test]
fn a_go_program_lives_that_would_be_killed() {
    let program = go(
        "garbage",
        "package main\n\
         type node struct { next *node; data [1024]byte }\n\
         var live, garbage *node\n\
         func main() {\n\
         \tfor i := 0; i < 90<<10; i++ { live = &node{next: live}; live.data[0] = 1 }\n\
         \tfor i := 0; i < 1<<20; i++ { garbage = &node{}; garbage.data[0] = 1 }\n\
         }\n",
    );
    let limit = Limit::new(200);
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(limit.plain(&[], &[&program]).status.signal(), Some(9), "the kernel kills it");
    assert_eq!(limit.heap("auto", &[], &[&program]).status.code(), Some(0));
}

/// What V8 says, in MiB: the old space, and up to three semi-spaces of 16 MiB more.
#[track_caller]
fn node_heap(output: &Output, old_space: u64) {
    let mib = number(output);
    assert!((old_space..=old_space + 48).contains(&mib), "{mib} MiB instead of {old_space}");
}

const NODE: [&str; 3] = ["node", "-p", "Math.floor(v8.getHeapStatistics().heap_size_limit / 1048576)"];

#[test]
fn node_obeys_the_limit_and_the_users_wins() {
    let limit = Limit::new(512);
    node_heap(&limit.heap("auto", &[], &NODE), 256);
    node_heap(&limit.heap("75", &[], &NODE), 384);
    node_heap(&limit.heap("75", &[("NODE_OPTIONS", "--no-warnings")], &NODE), 384);
    node_heap(&limit.heap("75", &[("NODE_OPTIONS", "--max-old-space-size=100")], &NODE), 100);
    node_heap(&limit.heap("75", &[("NODE_OPTIONS", "--max_old_space_size=100")], &NODE), 100);
    node_heap(&limit.heap("75", &[], &["node", "--max-old-space-size=100", NODE[1], NODE[2]]), 100);
    node_heap(&limit.heap("75", &[], &["sh", "-c", "exec node --max-old-space-size=100 \"$@\"", "sh", NODE[1], NODE[2]]), 100);
    // What the user has in the variable is still obeyed.
    let title = ["node", "-p", "process.title.length"];
    assert_eq!(number(&limit.heap("75", &[("NODE_OPTIONS", "--title=four")], &title)), 4);
    node_heap(&Limit::new(2048).heap("auto", &[], &NODE), 1536);
}

/// A program that leaks is ended by V8, which says so, and not by the kernel, which kills without a word.
#[test]
fn node_says_that_its_heap_is_full() {
    let leak = ["node", "-e", "const all = []; for (;;) all.push(new Array(1000).fill(all.length))"];
    let limit = Limit::new(200);
    let output = limit.heap("auto", &[], &leak);
    assert!(String::from_utf8_lossy(&output.stderr).contains("heap out of memory"), "{output:?}");
}

const JAVA: [&str; 3] = ["java", "-XX:+PrintFlagsFinal", "-version"];

/// The heap in MiB that HotSpot has decided on.
#[track_caller]
fn java_heap(output: &Output) -> u64 {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some("MaxHeapSize"));
    let bytes = line.and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    bytes.unwrap_or_else(|| panic!("no heap: {output:?}")) / MIB
}

/// HotSpot aligns a heap to whole regions or pages, a few MiB at most.
#[track_caller]
fn about(mib: u64, expected: u64) {
    assert!((expected.saturating_sub(3)..=expected + 4).contains(&mib), "{mib} MiB instead of {expected}");
}

#[test]
fn java_obeys_the_percentage() {
    for (limit, heap, expected) in [
        (200, "auto", 100),
        (200, "75", 150),
        (240, "75", 180),
        (512, "auto", 256),
        (512, "75", 384),
        (512, "10", 51),
        (2048, "auto", 1536),
    ] {
        about(java_heap(&Limit::new(limit).heap(heap, &[], &JAVA)), expected);
    }
    // Where the limit stands in a variable alone, the percentage is of the machine's memory.
    let variables = [("LAMEDUCK_MEMORY_LIMIT", "1Gi")];
    let output = Command::new(LAMEDUCK)
        .args(["exec", "--heap", "50", "--"])
        .args(JAVA)
        .env_clear()
        .env("PATH", PATH)
        .envs(variables)
        .output();
    about(java_heap(&output.expect("lameduck")), 512);
    // Two services share: each has a percentage of half of it, written as one of all of it.
    let limit = Limit::new(512);
    let memory = Memory { limit: limit.bytes, reserve: 0, visible: limit.bytes };
    let settings = heap::settings(Heap::Percent(75), Some(memory), 2, &["java"], &|_| None);
    let set = &settings.set[0];
    about(java_heap(&limit.plain(&[(set.name, &set.value)], &JAVA)), 192);
    // Why both percentages are set.
    let limit = Limit::new(200);
    about(java_heap(&limit.plain(&[("JAVA_TOOL_OPTIONS", "-XX:MaxRAMPercentage=75.0")], &JAVA)), 100);
}

#[test]
fn java_takes_the_users_heap() {
    let limit = Limit::new(512);
    let with = |variable| java_heap(&limit.heap("75", &[variable], &JAVA));
    for name in ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"] {
        about(with((name, "-Xmx100m")), 100);
        about(with((name, "-XX:MaxRAMPercentage=30.0")), 153);
    }
    about(java_heap(&limit.heap("75", &[], &["java", "-Xmx100m", JAVA[1], JAVA[2]])), 100);
    // A script that puts its own variable into the command.
    let script = ["sh", "-c", "exec java $JAVA_OPTS \"$@\"", "sh", JAVA[1], JAVA[2]];
    about(java_heap(&limit.heap("75", &[("JAVA_OPTS", "-Xmx100m")], &script)), 100);
    about(java_heap(&limit.heap("75", &[], &script)), 384);
    // Its other options are kept: ours stand behind them.
    let output = limit.heap("75", &[("JAVA_TOOL_OPTIONS", "-XX:MaxMetaspaceSize=77m")], &JAVA);
    about(java_heap(&output), 384);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.lines().any(|line| line.contains(" MaxMetaspaceSize ") && line.contains(&(77 * MIB).to_string())), "{text}");
}

/// Eight threads that allocate, and how many arenas malloc then has.
const ARENAS: &str = r#"
require "fiddle"
8.times.map { Thread.new { Array.new(1000) { "x" * 10_000 }.size } }.each(&:join)
def c(name, *types) = Fiddle::Function.new(Fiddle::Handle::DEFAULT[name], types, Fiddle::TYPE_INTPTR_T)
reader, writer = IO.pipe
answer = Thread.new { reader.read }
file = c("fdopen", Fiddle::TYPE_INT, Fiddle::TYPE_VOIDP).call(writer.fileno, "w")
c("malloc_info", Fiddle::TYPE_INT, Fiddle::TYPE_VOIDP).call(0, file)
c("fflush", Fiddle::TYPE_VOIDP).call(file)
writer.close
puts answer.value.scan("<heap nr=").size
"#;

#[test]
fn ruby_has_two_arenas() {
    let ruby = ["ruby", "-e", ARENAS];
    let limit = Limit::new(512);
    assert!(number(&limit.plain(&[], &ruby)) > 4, "without it there are more");
    assert_eq!(number(&limit.heap("auto", &[], &ruby)), 2);
    assert_eq!(number(&limit.heap("auto", &[("MALLOC_ARENA_MAX", "1")], &ruby)), 1);
    assert!(number(&limit.heap("auto", &[("GLIBC_TUNABLES", "glibc.malloc.arena_max=3")], &ruby)) == 3);
}
