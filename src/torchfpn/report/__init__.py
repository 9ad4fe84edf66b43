"""What people see of a training, a prediction or an evaluation: pictures, tables of a terminal, HTML pages."""
