//! Writes the man pages and shell completions of every program: DIRECTORY/PROGRAM/man and DIRECTORY/PROGRAM/completions.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::{Command, ValueHint};
use clap_complete::Shell;
use clap_mangen::Man;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let (Some(directory), None) = (words.next(), words.next()) else {
        eprintln!("lameduck-pages: cannot write pages: one directory is needed; give its path");
        return 64.into();
    };
    let takes_a_command =
        |program: Command| program.mut_arg("command", |words| words.value_hint(ValueHint::CommandWithArguments));
    let programs = [
        takes_a_command(lameduck::reference()),
        takes_a_command(lameduck_rehearse::reference()),
        // kubectl says `kubectl lameduck`; the file is named otherwise.
        kubectl_lameduck::cli::reference().name("kubectl-lameduck").bin_name("kubectl-lameduck"),
    ];
    for program in programs {
        let name = program.get_name().to_owned();
        if let Err(error) = write(program, &Path::new(&directory).join(&name)) {
            eprintln!(
                "lameduck-pages: cannot write the pages of {name}: {error}; is there space, and may {directory:?} be written?"
            );
            return 1.into();
        }
    }
    ExitCode::SUCCESS
}

fn write(program: Command, directory: &Path) -> io::Result<()> {
    let (man, completions) = (directory.join("man"), directory.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let name = program.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut program.clone(), &name, &completions)?;
    }
    let mut program = program.disable_help_subcommand(true);
    program.build();
    for command in program.get_subcommands() {
        write_page(command, &man)?;
    }
    write_page(&program, &man)
}

fn write_page(command: &Command, directory: &Path) -> io::Result<()> {
    let page = Man::new(command.clone()).manual("lameduck");
    let mut text = Vec::new();
    page.render(&mut text)?;
    // What stands below the options is set by hand, line by line; man pages call it notes.
    let text = String::from_utf8_lossy(&text)
        .replace("\n.SH EXTRA\n", "\n.SH NOTES\n.nf\n")
        .replace("\n.SH VERSION\n", "\n.fi\n.SH VERSION\n");
    fs::write(directory.join(page.get_filename()), text)
}
