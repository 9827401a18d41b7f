"""Times in the console: to the second, and in an order that sorts; "3:48 p.m." is no help in an outage."""

DATETIME_FORMAT = "Y-m-d H:i:s"
