<?php // /fast, /think?ms=, /stream?gap=&pieces= and /large; Apache's own log notes them.
file_get_contents('php://input');
header('Content-Type: text/plain');
switch (parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)) {
    case '/stream':
        while (ob_get_level() > 0) {
            ob_end_flush();
        }
        for ($piece = 0; $piece < (int) $_GET['pieces']; $piece++) {
            if ($piece > 0) {
                usleep((int) $_GET['gap'] * 1000);
            }
            echo "piece\n";
            flush();
        }
        break;
    case '/large':
        header('Content-Length: ' . (4 << 20));
        echo str_repeat('.', 4 << 20);
        break;
    default:
        usleep((int) $_GET['ms'] * 1000);
        header('Content-Length: 6');
        echo "whole\n";
}
