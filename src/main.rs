fn main() -> std::process::ExitCode {
    lameduck::main()
}
