<?php
// A slow legacy page: /?ms=300 takes that long, and knows nothing of shutdowns.
usleep(1000 * min(10000, max(0, (int) ($_GET['ms'] ?? 0))));
header('Content-Type: text/plain');
header('Content-Length: 5');
echo "done\n";
