worker_processes 8
listen "0.0.0.0:8080"
working_directory "@STATE@"
