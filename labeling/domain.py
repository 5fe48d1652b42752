class Domain:
    @classmethod
    def read(cls, folder):
        return None
