//! The program.

fn main() -> std::process::ExitCode {
    lameduck_rehearse::main()
}
