//! What was typed, and what it means.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::files;
use crate::inject::{How, Options, entrypoint};
use crate::lint::Severity;
use crate::report::Format;

/// Reads Kubernetes manifests, and never talks to a cluster: finds what would lose requests when pods stop, and puts lameduck into them
/// without a new image. Manifests come from files, directories and stdin (-), as they are written or as kustomize and helm print them.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl lameduck",
    bin_name = "kubectl lameduck",
    version,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done; 1 findings at or above --fail-on; 64 usage; 78 a manifest that cannot be read, or cannot be edited: then \
                  nothing is written.\n\n\
                  Examples:\n  \
                  kubectl lameduck lint manifests/\n  \
                  helm template shop | kubectl lameduck lint --format sarif - > lameduck.sarif\n  \
                  kustomize build . | kubectl lameduck inject --image registry.example.com/lameduck:0.1.0 - | kubectl apply -f -\n  \
                  kubectl lameduck inject --image IMAGE --how prestop --write manifests/\n  \
                  kubectl lameduck uninject --write manifests/"
)]
struct Typed {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find what would lose requests, waste time or kill late
    Lint {
        #[command(flatten)]
        input: Input,

        /// text, json or sarif
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        format: String,

        /// Exit with 1 if there is a finding of this severity or above: error, warning, info; or never
        #[arg(long, value_name = "SEVERITY", default_value = "warning")]
        fail_on: String,
    },
    /// Put lameduck into the containers that serve
    Inject {
        #[command(flatten)]
        input: Input,

        #[command(flatten)]
        output: Output,

        /// init: an init container copies the binary, and lameduck is the command. image-volume: the same by an image volume (Kubernetes
        /// 1.35). prestop: lameduck drain is the preStop hook, and the command stays
        #[arg(long, value_name = "HOW", default_value = "init")]
        how: String,

        /// The image that has the binary as /lameduck
        #[arg(long, value_name = "IMAGE")]
        image: Option<String>,

        /// Only containers of this name (repeatable) [default: those with ports or probes that take requests]
        #[arg(long, value_name = "NAME")]
        container: Vec<String>,

        /// What the image runs, ENTRYPOINT and CMD, where the manifest has no command: words, or a JSON list [default: asked of podman,
        /// docker and skopeo]
        #[arg(long, value_name = "WORDS")]
        entrypoint: Option<String>,

        /// Seconds for terminationGracePeriodSeconds [default: as it is, else 30]
        #[arg(long, value_name = "SECONDS")]
        grace_period: Option<i64>,
    },
    /// Give back the very bytes from before inject
    Uninject {
        #[command(flatten)]
        input: Input,

        #[command(flatten)]
        output: Output,
    },
    /// Draw each workload's timeline, and count its workers
    Plan {
        #[command(flatten)]
        input: Input,
    },
}

#[derive(Debug, Args)]
pub struct Input {
    /// Files; directories, of which every .yaml, .yml and .json below is read; - is stdin
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// The same, as kubectl has it
    #[arg(short, long = "filename", value_name = "FILE")]
    filename: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct Output {
    /// Write the files in place of printing them
    #[arg(short, long)]
    write: bool,
}

/// What is meant.
#[derive(Debug)]
pub enum Task {
    Print(String),
    Lint { files: Vec<PathBuf>, format: Format, fail_on: Option<Severity> },
    Inject { files: Vec<PathBuf>, write: bool, options: Options },
    Uninject { files: Vec<PathBuf>, write: bool },
    Plan { files: Vec<PathBuf> },
}

/// The error is one line, without our name before it.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Task, String> {
    let typed = match Typed::try_parse_from(words) {
        Ok(typed) => typed,
        Err(error) => {
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Task::Print(error.to_string())),
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
                    Err("cannot do nothing: no command was given; write lint, inject, uninject or plan, or see --help".to_owned())
                }
                _ => {
                    let first = error.to_string();
                    let first = first.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
                    Err(format!("cannot read the command line: {first}; see kubectl lameduck --help"))
                }
            };
        }
    };
    match typed.command {
        Command::Lint { input, format, fail_on } => {
            let format = match format.as_str() {
                "text" => Format::Text,
                "json" => Format::Json,
                "sarif" => Format::Sarif,
                _ => return Err(format!("cannot read format {format:?} from --format: not text, json or sarif")),
            };
            let fail_on = match fail_on.as_str() {
                "never" => None,
                word => Some(
                    word.parse()
                        .map_err(|()| format!("cannot read {word:?} from --fail-on: not error, warning, info or never"))?,
                ),
            };
            Ok(Task::Lint { files: input.files()?, format, fail_on })
        }
        Command::Inject { input, output, how, image, container, entrypoint, grace_period } => {
            let how = How::ALL.into_iter().find(|known| known.name() == how);
            let how = how.ok_or("cannot read --how: not init, image-volume or prestop")?;
            let image = image.ok_or(
                "cannot inject without an image: give --image, one that has the static binary as /lameduck (docs/kubectl.md shows its two lines)",
            )?;
            let entrypoint = match entrypoint {
                Some(text) => {
                    Some(entrypoint::typed(&text).map_err(|why| format!("cannot read {text:?} from --entrypoint: {why}"))?)
                }
                None => None,
            };
            if let Some(seconds) = grace_period.filter(|seconds| *seconds < 1) {
                return Err(format!("cannot use --grace-period {seconds}: nothing could be drained; give 30 or more"));
            }
            let options = Options { how, image, containers: container, entrypoint, grace: grace_period };
            Ok(Task::Inject { files: input.editable(&output)?, write: output.write, options })
        }
        Command::Uninject { input, output } => Ok(Task::Uninject { files: input.editable(&output)?, write: output.write }),
        Command::Plan { input } => Ok(Task::Plan { files: input.files()? }),
    }
}

impl Input {
    fn files(self) -> Result<Vec<PathBuf>, String> {
        let all = [self.files, self.filename].concat();
        if all.is_empty() {
            Err("cannot read manifests: no file was named; name files or directories, or - for stdin".to_owned())
        } else {
            Ok(all)
        }
    }

    fn editable(self, output: &Output) -> Result<Vec<PathBuf>, String> {
        let files = self.files()?;
        match files.iter().any(|file| file.as_os_str() == files::STDIN) && output.write {
            true => Err("cannot write stdin: leave --write out, and what is edited is printed".to_owned()),
            false => Ok(files),
        }
    }
}

/// All that can be typed: for man pages and shell completions.
pub fn reference() -> clap::Command {
    Typed::command()
}

/// The reference.
pub fn help() -> String {
    let mut command = reference();
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let mut text = command.render_long_help().to_string();
    for name in names {
        if let Some(command) = command.find_subcommand_mut(&name) {
            text.push_str(&command.render_long_help().to_string());
        }
    }
    text
}
