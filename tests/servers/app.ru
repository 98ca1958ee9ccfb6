# Rack: thinks for ?ms= milliseconds, then answers.
run(lambda do |env|
  sleep(env["QUERY_STRING"][/ms=(\d+)/, 1].to_i / 1000.0)
  [200, { "content-type" => "text/plain", "content-length" => "6" }, ["whole\n"]]
end)
