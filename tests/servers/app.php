<?php // Thinks for ?ms= milliseconds, then answers.
usleep((int) ($_GET['ms'] ?? 0) * 1000);
header('Content-Type: text/plain');
header('Content-Length: 6');
echo "whole\n";
