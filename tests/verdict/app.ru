# Rack: /fast, /think?ms=, /stream?gap=&pieces= and /large, each noted in a log when begun and when answered.
LOG = File.join(__dir__, "log")
LARGE = "." * (4 << 20)

def note(what, number)
  File.open(LOG, "a") { |log| log.syswrite("#{what} #{number} #{Process.clock_gettime(Process::CLOCK_MONOTONIC)}\n") }
end

run(lambda do |env|
  query = env["QUERY_STRING"].split("&").to_h { |pair| pair.split("=") }
  number = query["id"]
  note("begin", number)
  env["rack.input"].read
  if env["PATH_INFO"] == "/stream"
    pieces = Enumerator.new do |out|
      query["pieces"].to_i.times do |piece|
        sleep(query["gap"].to_i / 1000.0) if piece > 0
        out << "piece\n"
      end
      note("end", number)
    end
    next [200, { "content-type" => "text/plain" }, pieces]
  end
  sleep(query["ms"].to_i / 1000.0)
  body = env["PATH_INFO"] == "/large" ? LARGE : "whole\n"
  note("end", number)
  [200, { "content-type" => "text/plain", "content-length" => body.bytesize.to_s }, [body]]
end)
