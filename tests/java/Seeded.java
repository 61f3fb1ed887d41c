package oracle;

import java.nio.file.*;
import org.deeplearning4j.nn.conf.MultiLayerConfiguration;
import org.deeplearning4j.nn.multilayer.MultiLayerNetwork;
import org.nd4j.linalg.api.buffer.DataType;
import org.nd4j.linalg.dataset.DataSet;
import org.nd4j.linalg.factory.Nd4j;

/** A run of DL4J's from a configuration and its seed alone. */
final class Seeded {
    /** Arguments: a folder with conf.json, in.npy and labels.npy, the size of a batch, epochs; it gets first.npy and last.npy. */
    public static void main(String[] a) throws Exception {
        Nd4j.setDefaultDataTypes(DataType.DOUBLE, DataType.DOUBLE);
        Path dir = Paths.get(a[0]);
        MultiLayerNetwork net = new MultiLayerNetwork(MultiLayerConfiguration.fromJson(Files.readString(dir.resolve("conf.json"))));
        net.init();
        Npy.write(dir.resolve("first.npy"), net.params());
        DataSet all = new DataSet(Npy.read(dir.resolve("in.npy")), Npy.read(dir.resolve("labels.npy")));
        for (int epoch = 0; epoch < Integer.parseInt(a[2]); epoch++) {
            for (DataSet batch : all.batchBy(Integer.parseInt(a[1]))) net.fit(batch);
            net.incrementEpochCount(); // as with an iterator
        }
        Npy.write(dir.resolve("last.npy"), net.params());
    }
}
