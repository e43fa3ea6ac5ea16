"""The option ``--full``: the sizes of the table instead of tiny ones."""


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="benchmarks at their real sizes")
