#!/usr/bin/python3
"""CGI: thinks for ?ms= milliseconds, then answers."""
import os
import time
from urllib.parse import parse_qs

time.sleep(int(parse_qs(os.environ["QUERY_STRING"]).get("ms", ["0"])[0]) / 1000)
print("Content-Type: text/plain\r\nContent-Length: 6\r\n\r\nwhole")
