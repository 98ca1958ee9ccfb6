<?php // Thinks for ?ms= milliseconds, then answers. A single long sleep would be cut short by a signal, and a lost request look like an answered one.
$end = microtime(true) + (int) ($_GET['ms'] ?? 0) / 1000;
while (microtime(true) < $end) {
    usleep(5000);
}
header('Content-Type: text/plain');
header('Content-Length: 6');
echo "whole\n";
