<?php
// In place of your app: /?ms=300 takes that long. Many short sleeps, since php-fpm's stop signal would cut a long one short.
$end = microtime(true) + min(10000, max(0, (int) ($_GET['ms'] ?? 0))) / 1000;
while (microtime(true) < $end) {
    usleep(5000);
}
header('Content-Type: text/plain');
header('Content-Length: 5');
echo "done\n";
