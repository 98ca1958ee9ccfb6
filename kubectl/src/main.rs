//! kubectl-lameduck, which kubectl finds as `kubectl lameduck`. All that touches the outside is here and in `files`. docs/kubectl.md has the story.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use kubectl_lameduck::cli::{self, Task};
use kubectl_lameduck::files;
use kubectl_lameduck::inject::entrypoint::{self, Images};
use kubectl_lameduck::inject::{self, Edited, Options};
use kubectl_lameduck::lint;
use kubectl_lameduck::manifest::{self, Parsed, Source};
use kubectl_lameduck::plan;
use kubectl_lameduck::report;

const FINDINGS: u8 = 1;
const USAGE: u8 = 64;
const BAD_FILE: u8 = 78;

struct Fatal {
    code: u8,
    line: String,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code.into(),
        Err(Fatal { code, line }) => {
            eprintln!("kubectl-lameduck: {line}");
            code.into()
        }
    }
}

fn bad_file(line: String) -> Fatal {
    Fatal { code: BAD_FILE, line }
}

fn run() -> Result<u8, Fatal> {
    match cli::parse(std::env::args_os()).map_err(|line| Fatal { code: USAGE, line })? {
        Task::Print(text) => print(&text),
        Task::Lint { files, format, fail_on } => {
            let report = lint::lint(&parsed(&files)?);
            print(&report::written(&report, format))?;
            let fails = |severity| report.findings.iter().any(|finding| finding.severity >= severity);
            return Ok(if fail_on.is_some_and(fails) { FINDINGS } else { 0 });
        }
        Task::Plan { files } => print(&plan::plan(&parsed(&files)?)),
        Task::Inject { files, write, options } => inject(&files, write, &options),
        Task::Uninject { files, write } => edit(&files, write, inject::uninject).map(|_| ()),
    }?;
    Ok(0)
}

fn parsed(files: &[PathBuf]) -> Result<Vec<Parsed>, Fatal> {
    let sources = files::read(files).map_err(bad_file)?;
    sources.into_iter().map(|source| manifest::parse(source).map_err(bad_file)).collect()
}

fn inject(files: &[PathBuf], write: bool, options: &Options) -> Result<(), Fatal> {
    let mut seen = Vec::new();
    let one = |source: &Source| {
        let known: Images =
            inject::images(source, options)?.into_iter().filter_map(|image| Some((image.clone(), ask(&image)?))).collect();
        let edited = inject::inject(source, options, &known)?;
        seen.extend(edited.seen.clone());
        Ok(edited)
    };
    let texts = edited(files, one)?;
    if let Some(name) = options.containers.iter().find(|name| !seen.contains(name)) {
        return Err(Fatal {
            code: USAGE,
            line: format!("cannot inject container {name:?}: no workload has one of that name; see --container"),
        });
    }
    hand_out(texts, write)
}

fn edit(files: &[PathBuf], write: bool, one: impl FnMut(&Source) -> Result<Edited, String>) -> Result<(), Fatal> {
    hand_out(edited(files, one)?, write)
}

/// All are edited before anything is written.
fn edited(files: &[PathBuf], mut one: impl FnMut(&Source) -> Result<Edited, String>) -> Result<Vec<(Source, Edited)>, Fatal> {
    let sources = files::read(files).map_err(bad_file)?;
    sources.into_iter().map(|source| one(&source).map(|edited| (source, edited)).map_err(bad_file)).collect()
}

fn hand_out(texts: Vec<(Source, Edited)>, write: bool) -> Result<(), Fatal> {
    if write {
        let changed = texts.iter().filter(|(source, edited)| source.text != edited.text);
        let changed: Vec<(&Source, String)> = changed.map(|(source, edited)| (source, edited.text.clone())).collect();
        files::write(&changed).map_err(bad_file)?;
    } else {
        let mut all = String::new();
        for (_, edited) in &texts {
            if !all.is_empty() {
                all.push_str(if all.ends_with('\n') { "---\n" } else { "\n---\n" });
            }
            all.push_str(&edited.text);
        }
        print(&all)?;
    }
    for note in texts.iter().flat_map(|(_, edited)| &edited.notes) {
        eprintln!("{note}");
    }
    Ok(())
}

/// What an image runs, by the first program that knows it.
fn ask(image: &str) -> Option<entrypoint::Entrypoint> {
    entrypoint::questions(image).into_iter().find_map(|words| {
        let (program, words) = words.split_first()?;
        let answer = Command::new(program).args(words).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        entrypoint::answered(&answer.stdout).filter(|_| answer.status.success())
    })
}

fn print(text: &str) -> Result<(), Fatal> {
    // A closed pipe is whoever reads it having had enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
